// The backward pass of a whole QRNN layer, chunk by chunk from the end of processing order: gate
// gradients, their products for inputs and for weights, and the sums over the taps.
#ifndef QUASIBENCH_LAYER_BACKWARD_CPU_H
#define QUASIBENCH_LAYER_BACKWARD_CPU_H
#include "backward_cpu.h"
#include "layer_cpu.h"
#include "packing_cpu.h"

namespace qb {

template <class IO> struct LayerBackward {
  typedef typename Unit<IO>::type U;
  typedef typename Wide<IO>::type S;
  typedef typename Tiles<U>::Packed Packed;
  static const int ROWS = Tiles<U>::ROWS;
  static const int64_t E = Unit<IO>::ELEMENTS, PIECE = 8 * ROWS;  // rows of a task
  static const bool ROUNDED = sizeof(IO) != sizeof(S);

  Layer& layer;
  qb_call& a;
  const int64_t gates, width, depth, panels, strips;
  bool for_inputs, for_weights, few, started;
  U* transposed;           // weights [panels][units][PANEL]; few: dsums [groups][G][units][PANEL]
  U* inputs;               // taps [K][strips][units][ROWS]
  IO* dsums;               // [chunk, B, G*H]
  IO* dtaps;               // [chunk, B, K*C]
  IO* zeros;               // [C]
  S* total;                // [G][K*C][H] where dweight is rounded at the end

  explicit LayerBackward(Layer& given)
      : layer(given), a(given.call), gates(given.gates()), width(given.width()),
        depth(given.depth()), panels((depth + PANEL - 1) / PANEL),
        strips(strips_of<IO>(a.features)), for_inputs(a.dx != nullptr),
        for_weights(given.dweight[0] != nullptr), few(a.steps * a.batch <= FEW_ROWS),
        started(false) {}

  void transpose_weights() {
    const int64_t units = Rows<IO>::units(width);
    parallel_for(panels, panels * units * PANEL, a.threads, [&](int64_t panel) {
      U* own = transposed + panel * units * PANEL;
      const int64_t first = panel * PANEL;
      const int64_t count = first + PANEL < depth ? PANEL : depth - first;
      if (count < PANEL || width % E) memset((void*)own, 0, (size_t)(units * PANEL) * sizeof(U));
      for (int64_t gate = 0; gate < gates; ++gate) {
        const IO* from = (const IO*)layer.weight[gate] + first * layer.weight_row;
        for (int64_t h = 0; h < a.hidden; ++h)
          for (int64_t j = 0; j < count; ++j)
            put<IO>(own, gate * a.hidden + h, j, PANEL, from[j * layer.weight_row + h]);
      }
    });
  }

  void pool() {
    const int64_t block = block_width(a, BACKWARD), blocks = (a.hidden + block - 1) / block;
    const int64_t elements = (a.end - a.begin) * a.batch * a.hidden;
    parallel_for(a.batch * blocks, elements, a.threads, [&](int64_t task) {
      const int64_t first = task % blocks * block;
      const int64_t own = first + block < a.hidden ? block : a.hidden - first;
      layer.pool(a, task / blocks, first, own);
    });
  }

  // Gradients by the taps, [rows, K*C] = dsums [rows, G*H] times the transposed weights.
  struct Products {
    const LayerBackward& pass;
    Rows<IO>& rows;
    const U* panel;
    IO* out;
    int64_t first, own;

    template <int R> void tile(int64_t r) const {
      const int64_t width = pass.width, depth = pass.depth;
      rows.set(R, [&](int64_t i, int64_t) { return pass.dsums + (r + i) * width; });
      S sums[R * PANEL];
      Tiles<U>::template tile<R, false>(rows.at, rows.row, 1, rows.count, Packed{panel}, sums);
      for (int i = 0; i < R; ++i) {
        IO* to = out + (r + i) * depth + first;
        const S* sum = sums + i * PANEL;
#pragma omp simd
        for (int j = 0; j < (int)own; ++j) store(&to[j], sum[j]);
      }
    }
  };

  // The same turned round, [K*C, rows] = weights times turned dsums: for few rows, where turning
  // the weights would cost as much as the product.
  struct Turned {
    const LayerBackward& pass;
    Rows<IO>& rows;
    const U* panel;  // [G][units of H][PANEL rows]
    IO* out;
    int64_t own;

    template <int R> void tile(int64_t k) const {
      rows.set(R, [&](int64_t i, int64_t gate) {
        return (const IO*)pass.layer.weight[gate] + (k + i) * pass.layer.weight_row;
      });
      S sums[R * PANEL];
      Tiles<U>::template tile<R, false>(rows.at, rows.row, rows.parts, rows.count, Packed{panel},
                                        sums);
      for (int64_t j = 0; j < own; ++j)
        for (int i = 0; i < R; ++i) store(&out[j * pass.depth + k + i], sums[i * PANEL + j]);
    }
  };

  void turned_products(int64_t rows_now, IO* out) {
    const int64_t units = Rows<IO>::units(a.hidden), pieces = (depth + PIECE - 1) / PIECE;
    const int64_t groups = (rows_now + PANEL - 1) / PANEL, size = gates * units * PANEL;
    parallel_for(groups, rows_now * width, a.threads, [&](int64_t group) {
      U* own = transposed + group * size;
      const int64_t low = group * PANEL, count = rows_now - low < PANEL ? rows_now - low : PANEL;
      if (count < PANEL || a.hidden % E) memset((void*)own, 0, (size_t)size * sizeof(U));
      for (int64_t gate = 0; gate < gates; ++gate)
        for (int64_t h = 0; h < a.hidden; ++h)
          for (int64_t j = 0; j < count; ++j)
            put<IO>(own, gate * units * E + h, j, PANEL,
                dsums[(low + j) * width + gate * a.hidden + h]);
    });
    parallel_for(groups * pieces, rows_now * width * depth / WORK, a.threads, [&](int64_t task) {
      const int64_t group = task / pieces, low = task % pieces * PIECE;
      own_memory.reset(Arena::room<U>(gates * ROWS * units) + Arena::room<const U*>(gates) +
                       Arena::room<int64_t>(gates));
      U* buffer = own_memory.take<U>(gates * ROWS * units);
      Rows<IO> rows = {gates, a.hidden, units, buffer, own_memory.take<const U*>(gates),
                       own_memory.take<int64_t>(gates)};
      const int64_t first = group * PANEL;
      const Turned turned = {*this, rows, transposed + group * size, out + first * depth,
                             rows_now - first < PANEL ? rows_now - first : PANEL};
      Cover<ROWS>::rows(low, low + PIECE < depth ? low + PIECE : depth, turned);
    });
  }

  void products(int64_t rows_now, IO* out) {
    const int64_t units = Rows<IO>::units(width), pieces = (rows_now + PIECE - 1) / PIECE;
    parallel_for(panels * pieces, rows_now * width * depth / WORK, a.threads, [&](int64_t task) {
      const int64_t first = task % panels * PANEL, low = task / panels * PIECE;
      const int64_t count = low + PIECE < rows_now ? PIECE : rows_now - low;
      own_memory.reset(Arena::room<U>(ROWS * units) + 128);
      const U* at;
      int64_t row;
      Rows<IO> rows = {1, width, units, own_memory.take<U>(ROWS * units), &at, &row};
      const Products products = {*this, rows, transposed + first * units, out, first,
                                 first + PANEL < depth ? PANEL : depth - first};
      Cover<ROWS>::rows(low, low + count, products);
    });
  }

  void input_gradients(int64_t rows_now) {
    IO* out = a.taps == 1 ? (IO*)a.dx + a.begin * a.batch * depth : dtaps;
    if (few)
      turned_products(rows_now, out);
    else
      products(rows_now, out);
    if (a.taps == 1) return;
    a.dunfolded = dtaps;
    fold<IO>(a);
  }

  void weight_gradients(int64_t rows_now) {
    const int64_t units = Rows<IO>::units(rows_now), blocks = layer.blocks();
    interleave_taps<IO>(a, rows_now, zeros, inputs);
    parallel_for(gates * blocks, rows_now * width * depth / WORK, a.threads, [&](int64_t task) {
      const int64_t gate = task / blocks, first = task % blocks * PANEL;
      const int64_t own = first + PANEL < a.hidden ? PANEL : a.hidden - first;
      own_memory.reset(Arena::room<U>(units * PANEL));
      U* panel = own_memory.take<U>(units * PANEL);
      pack_columns(dsums, rows_now, width, gate * a.hidden + first, own, panel);
      S* sum_of = ROUNDED ? total + gate * depth * a.hidden : (S*)layer.dweight[gate];
      const int64_t apart = ROUNDED ? a.hidden : layer.dweight_row;
      for (int64_t strip = 0; strip < strips * a.taps; ++strip) {
        const U* at = inputs + strip * units * ROWS;
        S sums[ROWS * PANEL];
        Tiles<U>::template tile<ROWS, true>(&at, nullptr, 1, units, Packed{panel}, sums);
        const int64_t c = strip % strips * ROWS;
        const int64_t last = c + ROWS < a.features ? ROWS : a.features - c;
        for (int64_t i = 0; i < last; ++i) {
          S* to = sum_of + (strip / strips * a.features + c + i) * apart + first;
          const S* sum = sums + i * PANEL;
          if (started)
            for (int64_t j = 0; j < own; ++j) to[j] += sum[j];
          else
            for (int64_t j = 0; j < own; ++j) to[j] = sum[j];
        }
      }
    });
    started = true;
  }

  void finish() {
    S* sums = (S*)a.dbias;
    for (int64_t b = 1; b < a.batch; ++b)
      for (int64_t j = 0; j < width; ++j) sums[j] += sums[b * width + j];
    for (int64_t gate = 0; gate < gates; ++gate) {
      memcpy(layer.dbias[gate], sums + gate * a.hidden, (size_t)a.hidden * sizeof(S));
      if (!ROUNDED || !for_weights) continue;
      parallel_for(depth, depth * a.hidden, a.threads, [&](int64_t k) {
        IO* to = (IO*)layer.dweight[gate] + k * layer.dweight_row;
        const S* from = total + (gate * depth + k) * a.hidden;
#pragma omp simd
        for (int64_t j = 0; j < a.hidden; ++j) store(&to[j], from[j]);
      });
    }
  }

  void allocate() {
    const int64_t rows = layer.chunk * a.batch, units = Rows<IO>::units(rows);
    const int64_t groups = (rows + PANEL - 1) / PANEL;
    const int64_t turned = few ? groups * gates * Rows<IO>::units(a.hidden) * PANEL
                               : panels * Rows<IO>::units(width) * PANEL;
    const int64_t packed = a.taps * strips * units * ROWS;
    const int64_t sums = ROUNDED ? gates * depth * a.hidden : 0;
    const int64_t carried = (a.taps - 1) * a.batch * a.features;
    shared_memory.reset(Arena::room<U>(turned) + Arena::room<U>(packed) +
                        Arena::room<IO>(rows * width) + Arena::room<IO>(rows * depth) +
                        Arena::room<IO>(a.features) + Arena::room<S>(sums) +
                        Arena::room<S>(a.batch * width) +
                        Arena::room<S>(carried));
    transposed = shared_memory.take<U>(turned);
    inputs = shared_memory.take<U>(packed);
    dsums = shared_memory.take<IO>(rows * width);
    dtaps = shared_memory.take<IO>(rows * depth);
    zeros = shared_memory.take<IO>(a.features);
    memset((void*)zeros, 0, (size_t)a.features * sizeof(IO));
    total = shared_memory.take<S>(sums);
    a.dbias = shared_memory.take<S>(a.batch * width);
    a.carry = shared_memory.take<S>(carried);
    memset(a.dbias, 0, (size_t)(a.batch * width) * sizeof(S));
    if (carried) memset(a.carry, 0, (size_t)carried * sizeof(S));
  }

  // Gradients from call.pre [T, B, G*H] and the checkpoints that the forward pass saved.
  static void run(Layer layer) {
    LayerBackward pass(layer);
    qb_call& a = layer.call;
    const IO* pre = (const IO*)a.pre;
    pass.allocate();
    if (pass.for_inputs && !pass.few) pass.transpose_weights();
    const int64_t chunks = layer.chunks();
    for (int64_t index = 0; index < chunks; ++index) {
      layer.take_chunk(a.reverse ? index : chunks - 1 - index);
      const int64_t rows_now = (a.end - a.begin) * a.batch;
      a.pre = pre + a.begin * a.batch * pass.width;
      a.dpre = pass.dsums;
      pass.pool();
      if (pass.for_inputs) pass.input_gradients(rows_now);
      if (pass.for_weights) pass.weight_gradients(rows_now);
    }
    pass.finish();
  }
};

}  // namespace qb
#endif
