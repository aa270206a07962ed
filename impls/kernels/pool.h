// The mathematics of QRNN pooling, one step at a time, for every compiler: activations, zoneout,
// the recurrence and its derivative, Philox4x32-10, number formats. No include of any kind.
//
// Letters and the derivation of the backward step: README.md beside this file. A CUDA translation
// unit defines QB_HD as `__device__ __forceinline__` before it includes this text. Nothing here
// may be compiled with -ffast-math or -ffinite-math-only: NaN must survive the comparisons.
#ifndef QUASIBENCH_POOL_H
#define QUASIBENCH_POOL_H

#ifndef QB_HD
#define QB_HD static inline __attribute__((always_inline))
#endif

namespace qb {

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

enum Pooling { POOL_F = 0, POOL_FO = 1, POOL_IFO = 2 };  // gates: pooling + 2, in the order z f o i
enum Zone { ZONE_NONE = 0, ZONE_HOLD = 1, ZONE_EXPECT = 2 };

// ---- number formats -------------------------------------------------------------------------

struct bf16 {
  unsigned short bits;
};

// The state's format: float for float and bf16, double for double.
template <class IO> struct Wide { typedef float type; };
template <> struct Wide<double> { typedef double type; };

#if defined(__CUDA_ARCH__)
QB_HD float as_float(u32 bits) { return __uint_as_float(bits); }
QB_HD u32 as_bits(float value) { return __float_as_uint(value); }
#else
QB_HD float as_float(u32 bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}
QB_HD u32 as_bits(float value) {
  u32 bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
}
#endif

QB_HD float load(float x) { return x; }
QB_HD double load(double x) { return x; }
QB_HD float load(bf16 x) { return as_float((u32)x.bits << 16); }

QB_HD void store(float* at, float x) { *at = x; }
QB_HD void store(double* at, double x) { *at = x; }
QB_HD void store(bf16* at, float x) {
  // Nearest, ties to even; a NaN stays one (rounding its bits up could wrap around to -0).
  const u32 bits = as_bits(x);
  const u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  at->bits = (unsigned short)(x != x ? 0x7fc0u : rounded);
}

// ---- activations ----------------------------------------------------------------------------

// e^x = scale * (1 + minus_one) with scale a power of two, for -87 <= x <= 88; NaN gives NaN.
// Cody-Waite reduction and the polynomial of Cephes' expf: relative error below 1e-7. Written
// out because a vectoriser takes it as it is: no library call, the same bits in every lane.
QB_HD void exp_parts(float x, float* scale, float* minus_one) {
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: rounds to integer
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  *minus_one = p * (r * r) + r;
  *scale = as_float((as_bits(shifted) << 23) + 0x3f800000u);
}

// Both bounds by `a < b ? b : a`, which keeps a NaN in `a`.
QB_HD float clamp(float a, float low, float high) {
  a = a < low ? low : a;
  return a > high ? high : a;
}

QB_HD float sigmoid(float a) {
  float scale, minus_one;
  exp_parts(clamp(-a, -87.0f, 88.0f), &scale, &minus_one);
  return 1.0f / (1.0f + (scale + scale * minus_one));
}

// (e^2a - 1) / (e^2a + 1), with e^2a - 1 formed without cancellation: small `a` keep all digits.
QB_HD float hyperbolic_tangent(float a) {
  float scale, minus_one;
  exp_parts(clamp(2.0f * a, -40.0f, 40.0f), &scale, &minus_one);
  const float less = scale * minus_one + (scale - 1.0f);
  return less / (less + 2.0f);
}

#if !defined(QB_NO_DOUBLE)
QB_HD double sigmoid(double a) { return 1.0 / (1.0 + __builtin_exp(-a)); }
QB_HD double hyperbolic_tangent(double a) { return __builtin_tanh(a); }
#endif

// ---- zoneout --------------------------------------------------------------------------------

// How much of f (and, in mode keep, of i) zoneout lets through: 1 everything, 0 the unit is held,
// 1 - p in expectation. keep is the factor of the old state, admit that of z.
template <int P, int Z, class S>
QB_HD void mix(S f, S i, S slope, bool keeps_state, S* keep, S* admit) {
  *keep = Z == ZONE_NONE ? f : (S(1) - slope) + slope * f;
  if (P == POOL_IFO) {
    *admit = Z == ZONE_NONE || !keeps_state ? i : slope * i;
  } else {
    *admit = S(1) - *keep;
  }
}

// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
QB_HD void philox4x32(u64 key, u32 c0, u32 c1, u32 c2, u32 c3, u32 words[4]) {
  u32 k0 = (u32)key, k1 = (u32)(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const u64 product0 = (u64)0xD2511F53u * c0, product1 = (u64)0xCD9E8D57u * c2;
    c0 = (u32)(product1 >> 32) ^ c1 ^ k0;
    c1 = (u32)product1;
    c2 = (u32)(product0 >> 32) ^ c3 ^ k1;
    c3 = (u32)product0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// Uniform 16-bit number of step `t` from the word number (t % 8) / 2 of its block of 8 steps.
QB_HD u32 uniform16(u32 word, int t) { return (word >> (16 * (t & 1))) & 0xffffu; }

// ---- one step -------------------------------------------------------------------------------

template <class S> QB_HD S advance(S c, S keep, S admit, S z) { return keep * c + admit * z; }

// Gradients of one step by the gate sums. `flow` is the gradient by c_t (direct and through later
// steps), `before` is c_{t-1}; the gradient by c_{t-1} is flow * keep.
template <int P, class S>
QB_HD void gate_gradients(S flow, S before, S z, S f, S i, S slope, S slope_i, S admit, S* dz,
                          S* df, S* di) {
  const S by_keep = P == POOL_IFO ? flow * before : flow * (before - z);
  *dz = flow * admit * (S(1) - z * z);
  *df = by_keep * slope * (f * (S(1) - f));
  if (P == POOL_IFO) *di = flow * z * slope_i * (i * (S(1) - i));
}

template <class S> QB_HD S output_gradient(S dy, S c, S o) { return dy * c * (o * (S(1) - o)); }

}  // namespace qb
#endif
