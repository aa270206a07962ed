// Factors of the backward products, turned or interleaved as the tiles of gemm_cpu.h take them.
#ifndef QUASIBENCH_PACKING_CPU_H
#define QUASIBENCH_PACKING_CPU_H
#include "gemm_cpu.h"
#include "layer_cpu.h"
#include "parallel.h"

namespace qb {

// Writes element k of lane `lane` into a factor whose rows of units have `lanes` lanes.
template <class IO>
static inline void put(typename Unit<IO>::type* packed, int64_t k, int64_t lane, int64_t lanes,
                       IO value) {
  if (Unit<IO>::ELEMENTS == 1)
    packed[k * lanes + lane] = joined(value, value, typename Unit<IO>::type());
  else
    ((IO*)packed)[(k / 2 * lanes + lane) * 2 + k % 2] = value;
}

// Strips of inputs, one tile high, that cover C.
template <class IO> static int64_t strips_of(int64_t features) {
  const int64_t rows = Tiles<typename Unit<IO>::type>::ROWS;
  return (features + rows - 1) / rows;
}

// The chunk's taps as [K][strips][units of its rows][ROWS]; zero on padded steps and beyond C.
// zeros: [C].
template <class IO>
static void interleave_taps(const qb_call& a, int64_t rows, const IO* zeros,
                            typename Unit<IO>::type* interleaved) {
  typedef typename Unit<IO>::type U;
  const int ROWS = Tiles<U>::ROWS;
  const int64_t E = Unit<IO>::ELEMENTS, units = Rows<IO>::units(rows), C = a.features;
  const int64_t strips = strips_of<IO>(C);
  parallel_for(units, rows * a.taps * C, a.threads, [&](int64_t m) {
    const IO* row[2] = {zeros, zeros};
    for (int64_t k = 0; k < a.taps; ++k) {
      for (int64_t i = 0; i < E; ++i) {
        const int64_t r = m * E + i, t = a.begin + r / a.batch, b = r % a.batch;
        row[i] = r < rows && t < length_of(a, b) ? tap_at<IO>(a, t, b, k) : zeros;
      }
      const IO *low = row[0], *high = row[1];
      U* to = interleaved + (k * strips * units + m) * ROWS;
      int64_t c = 0;
      for (; c + ROWS <= C; c += ROWS, to += units * ROWS)
        for (int i = 0; i < ROWS; ++i) to[i] = joined(low[c + i], high[c + i], U());
      for (int64_t i = 0; c < C && i < ROWS; ++i)
        to[i] = c + i < C ? joined(low[c + i], high[c + i], U()) : U();
    }
  });
}

}  // namespace qb
#endif
