// The taps of the convolution: inputs laid side by side, their gradients added up again, and the
// window that a stream carries on. All in natural time, for both directions.
//
// Position p names an input: x[p] where the sequence has that step, else an entry of the carried
// window, which lies before step 0 (forward) or after the sequence's own end (reverse).
#ifndef QUASIBENCH_WINDOW_CPU_H
#define QUASIBENCH_WINDOW_CPU_H
#include <string.h>

#include "parallel.h"
#include "pool.h"
#include "pool_cpu.h"

namespace qb {

// A length outside 0..T would read beyond the arrays.
static int64_t length_of(const qb_call& a, int64_t b) {
  if (!a.lengths) return a.steps;
  const int64_t length = a.lengths[b] > 0 ? a.lengths[b] : 0;
  return length < a.steps ? length : a.steps;
}

// Position that tap `k` of step `t` sees.
static int64_t position_of(const qb_call& a, int64_t t, int64_t k) {
  return a.reverse ? t + (a.taps - 1 - k) : t - (a.taps - 1 - k);
}

// Index of position `p` in the carried window [K-1, B, C], or -1 where p is a step of x.
static int64_t window_index(const qb_call& a, int64_t b, int64_t p) {
  if (!a.reverse) return p < 0 ? p + a.taps - 1 : -1;
  const int64_t beyond = p - length_of(a, b);
  return beyond >= 0 ? a.taps - 2 - beyond : -1;
}

template <class IO> static const IO* input_at(const qb_call& a, int64_t b, int64_t p) {
  const int64_t index = window_index(a, b, p);
  if (index < 0) return (const IO*)a.x + p * a.x_time + b * a.x_batch;
  return (const IO*)a.window + (index * a.batch + b) * a.features;
}

template <class IO> static void unfold(const qb_call& a) {
  const int64_t K = a.taps, C = a.features, n = a.end - a.begin;
  parallel_for(n * a.batch, n * a.batch * K * C, a.threads, [&](int64_t task) {
    const int64_t t = a.begin + task / a.batch, b = task % a.batch;
    IO* row = (IO*)a.unfolded + task * K * C;
    if (t >= length_of(a, b)) {
      memset((void*)row, 0, (size_t)(K * C) * sizeof(IO));
      return;
    }
    for (int64_t k = 0; k < K; ++k)
      memcpy((void*)(row + k * C), input_at<IO>(a, b, position_of(a, t, k)),
             (size_t)C * sizeof(IO));
  });
}

// Entry m of the final window of sequence b.
static int64_t final_position(const qb_call& a, int64_t b, int64_t m) {
  return a.reverse ? a.taps - 2 - m : length_of(a, b) - (a.taps - 1) + m;
}

template <class IO> static void final_window(const qb_call& a) {
  for (int64_t m = 0; m < a.taps - 1; ++m)
    for (int64_t b = 0; b < a.batch; ++b)
      memcpy((void*)((IO*)a.window_last + (m * a.batch + b) * a.features),
             input_at<IO>(a, b, final_position(a, b, m)), (size_t)a.features * sizeof(IO));
}

template <class IO> struct Fold {
  typedef typename Wide<IO>::type S;
  static const int64_t PIECE = 256;  // channels summed at a time, in registers and L1

  const qb_call& a;
  int64_t taps, n, start;  // start: position of carry[0] when this chunk begins

  explicit Fold(const qb_call& call)
      : a(call), taps(call.taps - 1), n(call.end - call.begin),
        start(call.reverse ? call.begin : call.end - (call.taps - 1)) {}

  static void add(S* __restrict sum, const IO* __restrict given, int64_t count) {
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) sum[j] += load(given[j]);
  }

  // Everything that reaches position p from this chunk, the chunks done before and the final
  // window's gradient (`closing`: p will receive nothing more).
  void collect(int64_t b, int64_t p, int64_t first, int64_t count, bool closing, S* sum) const {
    const int64_t C = a.features, carried = p - start;
    if (carried >= 0 && carried < taps) {
      const S* carry = (const S*)a.carry + (carried * a.batch + b) * C + first;
      for (int64_t j = 0; j < count; ++j) sum[j] = carry[j];
    } else {
      for (int64_t j = 0; j < count; ++j) sum[j] = S(0);
    }
    for (int64_t k = 0; k <= taps; ++k) {
      const int64_t t = a.reverse ? p - (taps - k) : p + (taps - k);
      if (t < a.begin || t >= a.end) continue;
      const int64_t row = (t - a.begin) * a.batch + b;
      add(sum, (const IO*)a.dunfolded + (row * (taps + 1) + k) * C + first, count);
    }
    if (!closing || !a.dwindow_last) return;
    const int64_t m = a.reverse ? taps - 1 - p : p + taps - length_of(a, b);
    if (m >= 0 && m < taps)
      add(sum, (const IO*)a.dwindow_last + (m * a.batch + b) * C + first, count);
  }

  // The gradient of position p is complete: it belongs to x or to the initial window.
  void close(int64_t b, int64_t p, int64_t first, int64_t count, const S* sum) const {
    const int64_t C = a.features, index = window_index(a, b, p);
    if (p >= 0 && p < a.steps) {
      IO* dx = (IO*)a.dx + (p * a.batch + b) * C + first;
      for (int64_t j = 0; j < count; ++j) store(&dx[j], index < 0 ? sum[j] : S(0));
    }
    if (index >= 0 && index < taps) {
      IO* dwindow = (IO*)a.dwindow + (index * a.batch + b) * C + first;
      for (int64_t j = 0; j < count; ++j) store(&dwindow[j], sum[j]);
    }
  }

  void inputs() const {
    parallel_for(n * a.batch, n * a.batch * a.features * (taps + 1), a.threads, [&](int64_t task) {
      const int64_t p = a.begin + task / a.batch, b = task % a.batch;
      S sum[PIECE];
      for (int64_t first = 0; first < a.features; first += PIECE) {
        const int64_t count = a.features - first < PIECE ? a.features - first : PIECE;
        collect(b, p, first, count, true, sum);
        close(b, p, first, count, sum);
      }
    });
  }

  // What this chunk hands on to positions outside it; at the sequence's begin in processing order
  // these are the window's.
  void edge() const {
    const bool last = a.reverse ? a.end == a.steps : a.begin == 0;
    const int64_t next = a.reverse ? a.end : a.begin - taps;
    S sum[PIECE];
    for (int64_t index = 0; index < taps; ++index) {
      // In this order a new entry never overwrites an old one that is still to be read.
      const int64_t entry = a.reverse ? index : taps - 1 - index;
      for (int64_t b = 0; b < a.batch; ++b)
        for (int64_t first = 0; first < a.features; first += PIECE) {
          const int64_t count = a.features - first < PIECE ? a.features - first : PIECE;
          collect(b, next + entry, first, count, last, sum);
          S* carry = (S*)a.carry + (entry * a.batch + b) * a.features + first;
          for (int64_t j = 0; j < count; ++j) carry[j] = sum[j];
          if (last) close(b, next + entry, first, count, sum);
        }
    }
  }
};

template <class IO> static void fold(const qb_call& a) {
  const Fold<IO> fold(a);
  fold.inputs();
  fold.edge();
}

}  // namespace qb
#endif
