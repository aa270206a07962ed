// Forward pooling of one block of channels over one chunk of time.
#ifndef QUASIBENCH_FORWARD_CPU_H
#define QUASIBENCH_FORWARD_CPU_H
#include "blocks_cpu.h"

namespace qb {

template <class IO, int P, int Z> struct Forward {
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

  static void block(const qb_call& a, int64_t b, int64_t first, int64_t width) {
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
};

}  // namespace qb
#endif
