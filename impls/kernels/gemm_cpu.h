// Matrix products in registers: tiles of rows times panels of 32 columns. Every element is summed
// in one order, so no cut into tiles, tasks or threads changes a bit.
#ifndef QUASIBENCH_GEMM_CPU_H
#define QUASIBENCH_GEMM_CPU_H
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

#include "pool.h"

namespace qb {

static const int PANEL = 32;  // columns of a panel; those beyond the matrix are zero

#if defined(__AVX512F__)
#define QB_VECTOR 64
static const int SUMS = 24;  // vectors of sums held in registers
#elif defined(__AVX__)
#define QB_VECTOR 32
static const int SUMS = 12;
#elif defined(__aarch64__)
#define QB_VECTOR 16
static const int SUMS = 24;
#else
#define QB_VECTOR 16
static const int SUMS = 12;
#endif

// What a product multiplies at once: two bfloat16 where the CPU has an instruction for it; a pair
// may begin at any bfloat16.
struct __attribute__((may_alias, packed, aligned(2))) Pair {
  u32 bits;
};
template <class IO> struct Unit {
  typedef IO type;
  static const int ELEMENTS = 1;
};
#if defined(__AVX512BF16__)
template <> struct Unit<bf16> {
  typedef Pair type;
  static const int ELEMENTS = 2;
};
#else
template <> struct Unit<bf16> {
  typedef float type;
  static const int ELEMENTS = 1;
};
#endif

template <class U> struct Sum { typedef U type; };
template <> struct Sum<Pair> { typedef float type; };

template <class U> struct Tiles {
  typedef typename Sum<U>::type S;
  typedef S V __attribute__((vector_size(QB_VECTOR), aligned(sizeof(S)), may_alias));
  static const int LANES = QB_VECTOR / (int)sizeof(S), COUNT = PANEL / LANES;
  static const int ROWS = SUMS / COUNT > 1 ? SUMS / COUNT : 1;  // of the largest tile

  static V multiply(V sum, U a, V b) { return sum + a * b; }

  // Row k of factor b: from a panel, packed row by row, or from a matrix as it lies in memory.
  struct Packed {
    const U* panel;
    void row(int64_t k, V b[COUNT]) const {
#pragma GCC unroll 16
      for (int v = 0; v < COUNT; ++v) b[v] = *(const V*)(panel + k * PANEL + v * LANES);
    }
  };
  template <class IO> struct Plain {
    const IO* matrix;
    int64_t columns;
    void row(int64_t k, V b[COUNT]) const;
  };

  // sums [rows][PANEL] of one tile. Factor a: `parts` stretches of `count` units, row r of part p
  // begins at at[p] + r * row[p]; or, interleaved, one stretch in which unit k of row r lies at
  // at[0][k * ROWS + r]. Factor b has parts * count rows of units.
  template <int R, bool INTERLEAVED, class B>
  __attribute__((noinline)) static void tile(const U* const* at, const int64_t* row, int64_t parts,
                                             int64_t count, B factor, S* sums) {
    V sum[R][COUNT];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < COUNT; ++v) sum[r][v] = V{};
    int64_t at_b = 0;
    for (int64_t p = 0; p < parts; ++p) {
      const U* a = at[p];
      const int64_t step = INTERLEAVED ? ROWS : 1, apart = INTERLEAVED ? 1 : row[p];
      for (int64_t k = 0; k < count; ++k, ++at_b) {
        V b[COUNT];
        factor.row(at_b, b);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
          for (int v = 0; v < COUNT; ++v)
            sum[r][v] = multiply(sum[r][v], a[r * apart + k * step], b[v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < COUNT; ++v) *(V*)(sums + r * PANEL + v * LANES) = sum[r][v];
  }
};

template <class U>
template <class IO>
inline void Tiles<U>::Plain<IO>::row(int64_t k, V b[COUNT]) const {
#pragma GCC unroll 16
  for (int v = 0; v < COUNT; ++v) b[v] = *(const V*)(matrix + k * columns + v * LANES);
}

#if defined(__AVX512BF16__)
template <> inline Tiles<Pair>::V Tiles<Pair>::multiply(V sum, Pair a, V b) {
  return (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)a.bits), (__m512bh)b);
}

template <>
template <>
inline void Tiles<Pair>::Plain<bf16>::row(int64_t k, V b[COUNT]) const {
  const __m512i low = _mm512_loadu_si512(matrix + 2 * k * columns);
  const __m512i high = _mm512_loadu_si512(matrix + (2 * k + 1) * columns);
  const __m512i even = _mm512_set_epi16(
      47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8,
      39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  b[0] = (V)_mm512_permutex2var_epi16(low, even, high);
  b[1] = (V)_mm512_permutex2var_epi16(low, _mm512_add_epi16(even, _mm512_set1_epi16(16)), high);
}
#endif

// Unit number `index` of a row of `count` elements; beyond its end lies 0.
static inline float unit_of(const float* row, int64_t, int64_t index, float) { return row[index]; }
static inline double unit_of(const double* row, int64_t, int64_t index, double) {
  return row[index];
}
static inline float unit_of(const bf16* row, int64_t, int64_t index, float) {
  return load(row[index]);
}
static inline Pair unit_of(const bf16* row, int64_t count, int64_t index, Pair) {
  const u32 low = row[2 * index].bits;
  return Pair{2 * index + 1 < count ? low | (u32)row[2 * index + 1].bits << 16 : low};
}

static inline float joined(float first, float, float) { return first; }
static inline double joined(double first, double, double) { return first; }
static inline float joined(bf16 first, bf16, float) { return load(first); }
static inline Pair joined(bf16 first, bf16 second, Pair) {
  return Pair{first.bits | (u32)second.bits << 16};
}

// Columns first..first+width of a matrix [count][columns], as panel rows of units.
template <class IO>
static void pack_columns(const IO* matrix, int64_t count, int64_t columns, int64_t first,
                         int64_t width, typename Unit<IO>::type* panel) {
  typedef typename Unit<IO>::type U;
  const int64_t E = Unit<IO>::ELEMENTS;
  for (int64_t k = 0; k < count; k += E, panel += PANEL) {
    const IO* low = matrix + k * columns + first;
    const bool both = E == 2 && k + 1 < count;
    if (both && width == PANEL) {
      const IO* high = low + columns;
#pragma omp simd
      for (int j = 0; j < PANEL; ++j) panel[j] = joined(low[j], high[j], U());
      continue;
    }
    for (int64_t j = 0; j < PANEL; ++j) {
      const IO one = j < width ? low[j] : IO(), two = both && j < width ? low[columns + j] : IO();
      panel[j] = joined(one, two, U());
    }
  }
}

// Factor a of a product whose rows lie anywhere.
template <class IO> struct Rows {
  typedef typename Unit<IO>::type U;
  int64_t parts, elements, count;  // stretches of a row, their elements and their units
  U* buffer;                       // [parts][ROWS][count], for rows that have to be gathered
  const U** at;
  int64_t* row;

  static int64_t units(int64_t elements) {
    return (elements + Unit<IO>::ELEMENTS - 1) / Unit<IO>::ELEMENTS;
  }

  // `source(r, p)` says where part p of row r begins.
  template <class F> void set(int64_t rows, const F& source) {
    for (int64_t p = 0; p < parts; ++p) {
      const IO* base = source(0, p);
      const int64_t apart = rows > 1 ? source(1, p) - base : 0;
      bool even = sizeof(U) == sizeof(IO) * Unit<IO>::ELEMENTS &&
                  elements % Unit<IO>::ELEMENTS == 0 && apart % Unit<IO>::ELEMENTS == 0;
      for (int64_t r = 2; even && r < rows; ++r) even = source(r, p) == base + r * apart;
      if (even) {
        at[p] = (const U*)base;
        row[p] = apart / Unit<IO>::ELEMENTS;
        continue;
      }
      U* own = buffer + p * Tiles<U>::ROWS * count;
      at[p] = own;
      row[p] = count;
      for (int64_t r = 0; r < rows; ++r) {
        const IO* from = source(r, p);
        for (int64_t k = 0; k < count; ++k) own[r * count + k] = unit_of(from, elements, k, U());
      }
    }
  }
};

// Calls act.tile<R>(row) for tiles that cover the rows from..end, largest first.
template <int R> struct Cover {
  template <class F> static void rows(int64_t from, int64_t end, const F& act) {
    for (; from + R <= end; from += R) act.template tile<R>(from);
    Cover<(R + 2) / 3>::rows(from, end, act);
  }
};
template <> struct Cover<1> {
  template <class F> static void rows(int64_t from, int64_t end, const F& act) {
    for (; from < end; ++from) act.template tile<1>(from);
  }
};

}  // namespace qb
#endif
