// Backward pooling of one block of channels over one chunk of time, segment by segment.
#ifndef QUASIBENCH_BACKWARD_CPU_H
#define QUASIBENCH_BACKWARD_CPU_H
#include "blocks_cpu.h"

namespace qb {

template <class IO, int P, int Z> struct Backward {
  typedef typename Wide<IO>::type S;

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
      // The way back reads these first; from step to step they lie too far apart for the CPU to
      // foresee.
      const IO* dy = (const IO*)a.dy + t * a.dy_time + b * a.dy_batch + first;
      for (int j = 0; j < width; j += 64 / (int)sizeof(IO)) {
        __builtin_prefetch(dy + j);
        if (P != POOL_F) __builtin_prefetch(pre + 2 * H + j);
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

  static void block(const qb_call& a, int64_t b, int64_t first, int width) {
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
};

}  // namespace qb
#endif
