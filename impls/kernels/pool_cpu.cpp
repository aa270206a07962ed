// QRNN pooling forward and backward on a CPU: vectorised over channels, threads over batch and
// blocks of channels. A block's size depends on batch and hidden size only, never on the threads.
#include "pool_cpu.h"

#include "parallel.h"
#include "pool.h"
#include "window_cpu.h"

#define QB_API extern "C" __attribute__((visibility("default")))

namespace qb {

static const int STRIP = 32;      // channels of one vectorised piece
static const int FORWARD = 512;   // most channels of a forward block: its state stays in L1
static const int BACKWARD = 64;   // of a backward block: QB_SEGMENT steps of gates stay in L1
static const int64_t BLOCKS = 16;  // blocks wanted at least, over batch and channels

static int64_t block_width(const qb_call& a, int64_t most) {
  const int64_t strips = (a.hidden + STRIP - 1) / STRIP;
  int64_t wanted = (BLOCKS + a.batch - 1) / a.batch;
  wanted = wanted < strips ? wanted : strips;
  const int64_t width = (strips + wanted - 1) / wanted * STRIP;
  return width < most ? width : most;
}

// Natural step number `index` of `count` in processing order.
static int64_t in_order(const qb_call& a, int64_t low, int64_t count, int64_t index) {
  return a.reverse ? low + count - 1 - index : low + index;
}

// Which units of a block zoneout holds, one step at a time; a step of a block of eight costs one
// generator call per unit, the other seven none.
struct Holds {
  u32 words[4][FORWARD];
  int64_t drawn;

  Holds() : drawn(-1) {}

  // Where to look for step `t` (of processing order, counted from the stream's start).
  const u32* at(const qb_call& a, int64_t b, int64_t first, int64_t width, int64_t t) {
    if (t >> 3 != drawn) {
      drawn = t >> 3;
      const u32 unit = (u32)((u64)a.rows[b] * (u64)a.hidden + (u64)first);
      const u32 block = (u32)drawn, layer = (u32)a.layer, stream = (u32)a.stream;
      const u64 seed = a.seed;
      u32 *w0 = words[0], *w1 = words[1], *w2 = words[2], *w3 = words[3];
#pragma omp simd
      for (int j = 0; j < (int)width; ++j) {
        u32 out[4];
        philox4x32(seed, unit + (u32)j, block, layer, stream, out);
        w0[j] = out[0];
        w1[j] = out[1];
        w2[j] = out[2];
        w3[j] = out[3];
      }
    }
    return words[(t & 7) >> 1];
  }
};

template <class IO, int P, int Z> struct Pool {
  typedef typename Wide<IO>::type S;

  // y and c of one step for `count` channels; W > 0 says the count at compile time.
  template <int W>
  static void step(const qb_call& a, const IO* __restrict pre, const S* __restrict bias,
                   S* __restrict c, IO* __restrict y, const u32* __restrict words, int t,
                   int rest) {
    const int64_t H = a.hidden;
    const int count = W ? W : rest;
    const u32 threshold = (u32)a.threshold;
    const bool keeps = a.keeps_state;
    const S through = S(1) - S(a.expectation);
#pragma omp simd
    for (int j = 0; j < count; ++j) {
      const S z = hyperbolic_tangent(load(pre[j]) + bias[j]);
      const S f = sigmoid(load(pre[H + j]) + bias[H + j]);
      const S i = P == POOL_IFO ? sigmoid(load(pre[3 * H + j]) + bias[3 * H + j]) : S(0);
      S slope = through, keep, admit;
      if (Z == ZONE_HOLD) slope = uniform16(words[j], t) < threshold ? S(0) : S(1);
      mix<P, Z>(f, i, slope, keeps, &keep, &admit);
      const S now = advance(c[j], keep, admit, z);
      c[j] = now;
      if (P == POOL_F) {
        store(&y[j], now);
      } else {
        store(&y[j], sigmoid(load(pre[2 * H + j]) + bias[2 * H + j]) * now);
      }
    }
  }

  static void forward_block(const qb_call& a, int64_t b, int64_t first, int64_t width) {
    const int64_t H = a.hidden, n = a.end - a.begin, length = length_of(a, b);
    const S* bias = (const S*)a.bias + first;
    S* state = (S*)a.c + b * H + first;
    S c[FORWARD];
    for (int64_t j = 0; j < width; ++j) c[j] = state[j];
    Holds holds;
    for (int64_t index = 0; index < n; ++index) {
      const int64_t t = in_order(a, a.begin, n, index);
      const bool enters = a.reverse ? t + 1 == a.steps || (t + 1) % a.spacing == 0
                                    : t % a.spacing == 0;
      if (a.checkpoints && enters) {
        S* saved = (S*)a.checkpoints + (t / a.spacing * a.batch + b) * H + first;
        for (int64_t j = 0; j < width; ++j) saved[j] = c[j];
      }
      IO* y = (IO*)a.y + t * a.y_time + b * a.y_batch + first;
      if (t >= length) {
        for (int64_t j = 0; j < width; ++j) y[j] = IO();
        continue;
      }
      const IO* pre = (const IO*)a.pre + ((t - a.begin) * a.batch + b) * (P + 2) * H + first;
      const u32* words = nullptr;
      int time = 0;
      if (Z == ZONE_HOLD) {
        const int64_t since = a.t0[b] + (a.reverse ? length - 1 - t : t);
        words = holds.at(a, b, first, width, since);
        time = (int)(since & 7);
      }
      int64_t j = 0;
      for (; j + STRIP <= width; j += STRIP)
        step<STRIP>(a, pre + j, bias + j, c + j, y + j, words + j, time, STRIP);
      if (j < width)
        step<0>(a, pre + j, bias + j, c + j, y + j, words + j, time, (int)(width - j));
    }
    for (int64_t j = 0; j < width; ++j) state[j] = c[j];
  }

  // Gates and states of one segment, rebuilt from its checkpoint.
  struct Scratch {
    S z[QB_SEGMENT][BACKWARD], f[QB_SEGMENT][BACKWARD], i[QB_SEGMENT][BACKWARD];
    S slope[QB_SEGMENT][BACKWARD], before[QB_SEGMENT][BACKWARD];
  };

  static void rebuild(const qb_call& a, const IO* __restrict pre, const S* __restrict bias,
                      S* __restrict c, Scratch& s, int64_t k, const u32* __restrict words, int t,
                      int count) {
    const int64_t H = a.hidden;
    const u32 threshold = (u32)a.threshold;
    const bool keeps = a.keeps_state;
    const S through = S(1) - S(a.expectation);
    S *__restrict zs = s.z[k], *__restrict fs = s.f[k], *__restrict is = s.i[k];
    S *__restrict slopes = s.slope[k], *__restrict befores = s.before[k];
#pragma omp simd
    for (int j = 0; j < count; ++j) {
      const S z = hyperbolic_tangent(load(pre[j]) + bias[j]);
      const S f = sigmoid(load(pre[H + j]) + bias[H + j]);
      const S i = P == POOL_IFO ? sigmoid(load(pre[3 * H + j]) + bias[3 * H + j]) : S(0);
      S slope = through, keep, admit;
      if (Z == ZONE_HOLD) slope = uniform16(words[j], t) < threshold ? S(0) : S(1);
      mix<P, Z>(f, i, slope, keeps, &keep, &admit);
      zs[j] = z;
      fs[j] = f;
      if (P == POOL_IFO) is[j] = i;
      if (Z == ZONE_HOLD) slopes[j] = slope;
      befores[j] = c[j];
      c[j] = advance(c[j], keep, admit, z);
    }
  }

  // Gate gradients of one step; `g` is the gradient by the state, `sums` [G][BACKWARD] the bias's.
  static void step_back(const qb_call& a, const IO* pre, const S* __restrict bias,
                        const IO* __restrict dy, S* __restrict g, IO* dpre, const Scratch& s,
                        int64_t k, S* __restrict sums, int count) {
    const int64_t H = a.hidden;
    const bool keeps = a.keeps_state;
    const S through = S(1) - S(a.expectation);
    const S *__restrict zs = s.z[k], *__restrict fs = s.f[k], *__restrict is = s.i[k];
    const S *__restrict slopes = s.slope[k], *__restrict befores = s.before[k];
// dpre may be pre itself: every element is read before it is written, by the same iteration.
#pragma omp simd
    for (int j = 0; j < count; ++j) {
      const S z = zs[j], f = fs[j], before = befores[j], given = load(dy[j]);
      const S i = P == POOL_IFO ? is[j] : S(0);
      const S slope = Z == ZONE_HOLD ? slopes[j] : Z == ZONE_EXPECT ? through : S(1);
      const S slope_i = keeps ? slope : S(1);
      S keep, admit, dz, df, di = S(0), flow = g[j] + given;
      mix<P, Z>(f, i, slope, keeps, &keep, &admit);
      if (P != POOL_F) {
        const S o = sigmoid(load(pre[2 * H + j]) + bias[2 * H + j]);
        const S by_o = output_gradient(given, advance(before, keep, admit, z), o);
        flow = g[j] + given * o;
        store(&dpre[2 * H + j], by_o);
        sums[2 * BACKWARD + j] += by_o;
      }
      gate_gradients<P>(flow, before, z, f, i, slope, slope_i, admit, &dz, &df, &di);
      store(&dpre[j], dz);
      store(&dpre[H + j], df);
      sums[j] += dz;
      sums[BACKWARD + j] += df;
      if (P == POOL_IFO) {
        store(&dpre[3 * H + j], di);
        sums[3 * BACKWARD + j] += di;
      }
      g[j] = flow * keep;
    }
  }

  // One segment: natural steps low..low+n-1, forward from its checkpoint, then back.
  static void segment_back(const qb_call& a, int64_t b, int64_t first, int width, int64_t low,
                           int64_t n, Holds& holds, S* g, S* sums) {
    const int64_t H = a.hidden, GH = (P + 2) * H, length = length_of(a, b);
    const S* bias = (const S*)a.bias + first;
    const S* saved = (const S*)a.checkpoints + (low / a.spacing * a.batch + b) * H + first;
    Scratch scratch;
    S c[BACKWARD];
    for (int j = 0; j < width; ++j) c[j] = saved[j];
    for (int64_t k = 0; k < n; ++k) {
      const int64_t t = in_order(a, low, n, k);
      if (t >= length) continue;
      const IO* pre = (const IO*)a.pre + ((t - a.begin) * a.batch + b) * GH + first;
      const u32* words = nullptr;
      int time = 0;
      if (Z == ZONE_HOLD) {
        const int64_t since = a.t0[b] + (a.reverse ? length - 1 - t : t);
        words = holds.at(a, b, first, width, since);
        time = (int)(since & 7);
      }
      rebuild(a, pre, bias, c, scratch, k, words, time, width == BACKWARD ? BACKWARD : width);
    }
    for (int64_t k = n - 1; k >= 0; --k) {
      const int64_t t = in_order(a, low, n, k);
      const int64_t at = ((t - a.begin) * a.batch + b) * GH + first;
      IO* dpre = (IO*)a.dpre + at;
      if (t >= length) {
        for (int gate = 0; gate < P + 2; ++gate)
          for (int j = 0; j < width; ++j) dpre[gate * H + j] = IO();
        continue;
      }
      const IO* dy = (const IO*)a.dy + t * a.dy_time + b * a.dy_batch + first;
      step_back(a, (const IO*)a.pre + at, bias, dy, g, dpre, scratch, k, sums, width);
    }
  }

  static void backward_block(const qb_call& a, int64_t b, int64_t first, int width) {
    const int64_t H = a.hidden, count = a.end - a.begin;
    S* gradient = (S*)a.dc + b * H + first;
    S g[BACKWARD], sums[(P + 2) * BACKWARD];
    for (int j = 0; j < width; ++j) g[j] = gradient[j];
    for (int j = 0; j < (P + 2) * BACKWARD; ++j) sums[j] = S(0);
    Holds holds;
    const int64_t segments = (count + a.spacing - 1) / a.spacing;
    for (int64_t k = segments - 1; k >= 0; --k) {
      const int64_t segment = a.reverse ? segments - 1 - k : k;
      const int64_t low = a.begin + segment * a.spacing;
      const int64_t n = low + a.spacing < a.end ? a.spacing : a.end - low;
      segment_back(a, b, first, width, low, n, holds, g, sums);
    }
    for (int j = 0; j < width; ++j) gradient[j] = g[j];
    S* dbias = (S*)a.dbias + b * (P + 2) * H + first;
    for (int gate = 0; gate < P + 2; ++gate)
      for (int j = 0; j < width; ++j) dbias[gate * H + j] += sums[gate * BACKWARD + j];
  }

  static void run(const qb_call& a, bool back) {
    const int64_t width = block_width(a, back ? BACKWARD : FORWARD);
    const int64_t blocks = (a.hidden + width - 1) / width;
    const int64_t elements = (a.end - a.begin) * a.batch * a.hidden;
    parallel_for(a.batch * blocks, elements, a.threads, [&](int64_t task) {
      const int64_t b = task / blocks, first = task % blocks * width;
      const int64_t own = first + width < a.hidden ? width : a.hidden - first;
      if (back)
        backward_block(a, b, first, (int)own);
      else
        forward_block(a, b, first, own);
    });
  }
};

template <class IO, int P> static void pick_zone(const qb_call& a, bool back) {
  if (a.zone == ZONE_NONE) Pool<IO, P, ZONE_NONE>::run(a, back);
  if (a.zone == ZONE_HOLD) Pool<IO, P, ZONE_HOLD>::run(a, back);
  if (a.zone == ZONE_EXPECT) Pool<IO, P, ZONE_EXPECT>::run(a, back);
}

template <class IO> static void pick_pooling(const qb_call& a, bool back) {
  if (a.pooling == POOL_F) pick_zone<IO, POOL_F>(a, back);
  if (a.pooling == POOL_FO) pick_zone<IO, POOL_FO>(a, back);
  if (a.pooling == POOL_IFO) pick_zone<IO, POOL_IFO>(a, back);
}

static void pool(const qb_call& a, bool back) {
  if (a.format == 0) pick_pooling<float>(a, back);
  if (a.format == 1) pick_pooling<bf16>(a, back);
  if (a.format == 2) pick_pooling<double>(a, back);
}

// Rows 1.. added to row 0 in this order, whatever the threads.
template <class S> static void sum_rows(S* rows, int64_t count, int64_t width) {
  for (int64_t row = 1; row < count; ++row)
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) rows[j] += rows[row * width + j];
}

}  // namespace qb

QB_API int64_t qb_abi(void) { return QB_ABI * 4096 + (int64_t)sizeof(qb_call); }
QB_API void qb_use_threads_of(void* gomp_parallel) {
  qb::fork_threads = reinterpret_cast<qb::Fork>(gomp_parallel);
}
QB_API void qb_pool_forward(const qb_call* call) { qb::pool(*call, false); }
QB_API void qb_pool_backward(const qb_call* call) { qb::pool(*call, true); }
QB_API void qb_unfold(const qb_call* call) {
  if (call->format == 0) qb::unfold<float>(*call);
  if (call->format == 1) qb::unfold<qb::bf16>(*call);
  if (call->format == 2) qb::unfold<double>(*call);
}
QB_API void qb_final_window(const qb_call* call) {
  if (call->format == 0) qb::final_window<float>(*call);
  if (call->format == 1) qb::final_window<qb::bf16>(*call);
  if (call->format == 2) qb::final_window<double>(*call);
}
QB_API void qb_fold(const qb_call* call) {
  if (call->format == 0) qb::fold<float>(*call);
  if (call->format == 1) qb::fold<qb::bf16>(*call);
  if (call->format == 2) qb::fold<double>(*call);
}
QB_API void qb_sum_bias(const qb_call* call) {
  const int64_t width = (call->pooling + 2) * call->hidden;
  if (call->format == 2)
    qb::sum_rows((double*)call->dbias, call->batch, width);
  else
    qb::sum_rows((float*)call->dbias, call->batch, width);
}
