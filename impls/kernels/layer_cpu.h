// A whole QRNN layer: what its forward and backward pass share, and the forward pass.
//
// Forward, a task owns 32 channels of all gates: their weights stay packed in its cache, it makes
// the gate sums of a chunk of time and pools them, chunk after chunk. No task waits for another.
#ifndef QUASIBENCH_LAYER_CPU_H
#define QUASIBENCH_LAYER_CPU_H
#include "arena_cpu.h"
#include "forward_cpu.h"
#include "gemm_cpu.h"
#include "layer_c.h"
#include "parallel.h"
#include "window_cpu.h"

namespace qb {

static const int64_t FEW_ROWS = 256;  // up to which weights are used as they lie: no packing
static const int64_t WORK = 256;  // multiplications that cost as much as one pooled element

// Pools channels first..first+own of sequence b over the chunk: Forward's or Backward's `block`.
typedef void (*PoolBlock)(const qb_call& a, int64_t b, int64_t first, int64_t own);

// One call; call.pre: gate sums of all steps (forward: null where nothing is to be saved).
struct Layer : qb_layer {
  PoolBlock pool;

  int64_t gates() const { return call.pooling + 2; }
  int64_t width() const { return gates() * call.hidden; }
  int64_t depth() const { return call.taps * call.features; }
  int64_t blocks() const { return (call.hidden + PANEL - 1) / PANEL; }
  int64_t chunks() const { return (call.steps + chunk - 1) / chunk; }
  void take_chunk(int64_t index) {
    call.begin = index * chunk;
    call.end = call.begin + chunk < call.steps ? call.begin + chunk : call.steps;
  }
};

static thread_local Arena shared_memory, own_memory;  // of a call, of a task

// The inputs that tap k of step t sees; on padded steps any row that exists.
template <class IO> static const IO* tap_at(const qb_call& a, int64_t t, int64_t b, int64_t k) {
  if (t >= length_of(a, b)) return (const IO*)a.x + t * a.x_time + b * a.x_batch;
  return input_at<IO>(a, b, position_of(a, t, k));
}

template <class IO> struct LayerForward {
  static const int64_t E = Unit<IO>::ELEMENTS;
  typedef typename Unit<IO>::type U;
  typedef typename Wide<IO>::type S;
  typedef typename Tiles<U>::Packed Packed;
  typedef typename Tiles<U>::template Plain<IO> Plain;

  // Gate sums of one block of channels for the rows of a chunk: step begin + r / n, sequence
  // low + r % n.
  struct Sums {
    const Layer& layer;
    const qb_call& a;
    Rows<IO>& rows;
    const U* panels;  // [G][parts * count][PANEL]; null: the weights are used as they lie
    int64_t low, n, first, own;

    template <int R> void tile(int64_t r) const {
      int64_t step[R], sequence[R];  // counted up: divisions for every row cost a tenth of the tile
      for (int64_t i = 0, s = r / n, b = r % n; i < R; ++i) {
        step[i] = s;
        sequence[i] = low + b;
        if (++b == n) ++s, b = 0;
      }
      rows.set(R, [&](int64_t i, int64_t k) {
        return tap_at<IO>(a, a.begin + step[i], sequence[i], k);
      });
      const int64_t gates = a.pooling + 2;
      S sums[R * PANEL];
      for (int64_t gate = 0; gate < gates; ++gate) {
        if (panels) {
          const Packed panel = {panels + gate * rows.parts * rows.count * PANEL};
          Tiles<U>::template tile<R, false>(rows.at, rows.row, rows.parts, rows.count, panel, sums);
        } else {
          const Plain matrix = {(const IO*)layer.weight[gate] + first,
                                layer.weight_row};
          Tiles<U>::template tile<R, false>(rows.at, rows.row, rows.parts, rows.count, matrix,
                                            sums);
        }
        for (int i = 0; i < R; ++i) {
          const int64_t row = step[i] * a.batch + sequence[i];
          IO* out = (IO*)a.pre + (row * gates + gate) * a.hidden + first;
          const S* sum = sums + i * PANEL;
#pragma omp simd
          for (int j = 0; j < (int)own; ++j) store(&out[j], sum[j]);
        }
      }
    }
  };

  // Channels first..first+own of sequences low..high, from the first step to the last.
  static void task(Layer layer, int64_t first, int64_t own, int64_t low, int64_t high, IO* pre,
                   bool saved) {
    qb_call& a = layer.call;
    const int64_t count = Rows<IO>::units(a.features), parts = a.taps;
    own_memory.reset(Arena::room<U>(layer.gates() * parts * count * PANEL) +
                     Arena::room<U>(parts * Tiles<U>::ROWS * count) +
                     Arena::room<const U*>(parts) + Arena::room<int64_t>(parts));
    U* panels = own_memory.take<U>(layer.gates() * parts * count * PANEL);
    U* buffer = own_memory.take<U>(parts * Tiles<U>::ROWS * count);
    Rows<IO> rows = {parts, a.features, count, buffer, own_memory.take<const U*>(parts),
                     own_memory.take<int64_t>(parts)};
    // Few rows do not repay the packing.
    const bool packs = own < PANEL || a.features % E || sizeof(U) != E * sizeof(IO) ||
                       a.steps * (high - low) > FEW_ROWS;
    for (int64_t at = 0; packs && at < layer.gates() * parts; ++at)
      pack_columns((const IO*)layer.weight[at / parts] + at % parts * a.features * layer.weight_row,
                   a.features, layer.weight_row, first, own, panels + at * count * PANEL);
    const int64_t chunks = layer.chunks();
    for (int64_t index = 0; index < chunks; ++index) {
      layer.take_chunk(a.reverse ? chunks - 1 - index : index);
      a.pre = saved ? pre + a.begin * a.batch * layer.width() : pre;
      const Sums sums = {layer, a, rows, packs ? panels : nullptr, low, high - low, first, own};
      Cover<Tiles<U>::ROWS>::rows(0, (a.end - a.begin) * (high - low), sums);
      for (int64_t b = low; b < high; ++b) layer.pool(a, b, first, own);
    }
  }

  // y, c, checkpoints, and call.pre [T, B, G*H] where it is given.
  static void run(const Layer& layer) {
    const qb_call& a = layer.call;
    const int64_t blocks = layer.blocks();
    int64_t groups = (3 * a.threads + blocks - 1) / blocks;  // of sequences
    if (a.threads <= 2 || groups < 1) groups = 1;
    if (groups > a.batch) groups = a.batch;
    IO* sums = (IO*)a.pre;
    if (!sums) {
      const int64_t elements = layer.chunk * a.batch * layer.width();
      shared_memory.reset(Arena::room<IO>(elements));
      sums = shared_memory.take<IO>(elements);
    }
    const int64_t work = a.steps * a.batch * layer.width() * layer.depth() / WORK;
    parallel_for(blocks * groups, work, a.threads, [&](int64_t task_number) {
      const int64_t first = task_number / groups * PANEL, group = task_number % groups;
      const int64_t own = first + PANEL < a.hidden ? PANEL : a.hidden - first;
      task(layer, first, own, group * a.batch / groups, (group + 1) * a.batch / groups, sums,
           a.pre != nullptr);
    });
  }
};

}  // namespace qb
#endif
