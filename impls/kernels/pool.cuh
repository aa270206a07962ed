// QRNN pooling on CUDA: gates, zoneout, recurrence and output in one pass over memory. The
// mathematics of one step is pool.h's, its derivation README.md's; here is how threads share it.
//
// Compiled by NVRTC without any include but pool.h (pool_forward.cuh and pool_backward.cuh follow
// it in one text), and by g++ over a shim in the tests. Letters: T steps, B sequences, H hidden
// units, G gates in the order z f o i.
//
// One block owns LANES * V neighbouring channels of one sequence and walks over its time in tiles
// of SEGMENTS * STEPS steps. A thread owns V channels of one segment: it issues all its loads,
// activates, reduces its steps to an affine map c -> a c + b, exchanges the maps through shared
// memory (two buffers, so one barrier per tile), learns the state that enters its segment, and
// replays its steps. Backward: the tiles from last to first, the cells rebuilt from the checkpoint
// of each tile, the gradient carried by a second affine map.
//
// Processing positions: step t = 0 .. length-1 of a sequence (reverse: 0 is its last valid step)
// has position t + shift. With a zoneout mask shift = t0 % 8, so that a tile begins where a block
// of the random generator does; otherwise it is 0.

#define QB_HD __device__ __forceinline__
#define QB_NO_DOUBLE
#include "pool.h"

namespace qb {

enum { GATE_Z = 0, GATE_F = 1, GATE_O = 2 };  // the input gate is the last one of ifo-pooling

// ---- numbers: the instruction where there is one, plain C++ elsewhere ---------------------------

QB_HD float exp2_of(float x) {
#ifdef __CUDA_ARCH__
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  return exp2f(x);
#endif
}

QB_HD float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  return 1.0f / x;
#endif
}

// Off by up to 5e-4: only for numbers that are rounded to bfloat16 and never carried.
QB_HD float tanh_rough(float x) {
#ifdef __CUDA_ARCH__
  float r;
  asm("tanh.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  return tanhf(x);
#endif
}

// Two numbers rounded to nearest even, `low` in the low half.
QB_HD u32 two_bf16(float low, float high) {
#ifdef __CUDA_ARCH__
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
#else
  bf16 halves[2];
  store(halves, low);
  store(halves + 1, high);
  return halves[0].bits | (u32)halves[1].bits << 16;
#endif
}

#define QB_LOG2E 1.4426950408889634f

// sigmoid(x + bias) with scaled = -log2(e) * bias: scale and bias cost one fused operation. No
// bound is needed: e^-x may become infinite, whose reciprocal is 0.
QB_HD float device_sigmoid(float x, float scaled) {
  return reciprocal(1.0f + exp2_of(fmaf(x, -QB_LOG2E, scaled)));
}

// Near 0 a polynomial keeps the relative accuracy that 1 - 2 / (1 + e^2x) loses.
QB_HD float device_tanh(float x) {
  const float s = x * x;
  float p = fmaf(1.57394409e-2f, s, -5.23025580e-2f);
  p = fmaf(p, s, 1.33152470e-1f);
  p = fmaf(p, s, -3.33327681e-1f);
  const float near = fmaf(p * s, x, x);
  const float far = fmaf(-2.0f, reciprocal(1.0f + exp2_of(2.0f * QB_LOG2E * x)), 1.0f);
  return fabsf(x) < 0.55f ? near : far;
}

// ---- V neighbouring channels in one memory operation --------------------------------------------

template <class T, int V> struct Pack;
template <> struct Pack<float, 1> {
  float raw;
  QB_HD float get(int) const { return raw; }
  QB_HD static Pack of(const float* v) { return Pack{v[0]}; }
};
template <> struct Pack<bf16, 1> {
  unsigned short raw;
  QB_HD float get(int) const { return as_float((u32)raw << 16); }
  QB_HD static Pack of(const float* v) { return Pack{(unsigned short)two_bf16(v[0], 0.0f)}; }
};
template <> struct Pack<bf16, 2> {
  u32 raw;
  QB_HD float get(int v) const { return as_float(v ? raw & 0xffff0000u : raw << 16); }
  QB_HD static Pack of(const float* v) { return Pack{two_bf16(v[0], v[1])}; }
};

template <class T, int V> QB_HD Pack<T, V> read(const T* at) {
  return *reinterpret_cast<const Pack<T, V>*>(at);
}
template <class T, int V> QB_HD void write(T* at, const float* values) {
  *reinterpret_cast<Pack<T, V>*>(at) = Pack<T, V>::of(values);
}

// ---- what a kernel is made for ------------------------------------------------------------------

// T: float or bf16. KEEPS: zoneout holds the state of ifo-pooling too. V: channels per lane (2
// only for bf16). STEPS: 4 or 8.
template <class T_, int P_, int Z_, bool KEEPS_, int V_, int LANES_, int SEGMENTS_, int STEPS_>
struct Kind {
  typedef T_ T;
  typedef Pack<T_, V_> Packed;
  static constexpr int P = P_, Z = Z_, V = V_, LANES = LANES_, SEGMENTS = SEGMENTS_,
                       STEPS = STEPS_, TILE = SEGMENTS_ * STEPS_, SPAN = LANES_ * V_,
                       GATES = P_ + 2, LAST = P_ + 1;
  static constexpr bool MASK = Z_ == ZONE_HOLD, KEEPS = KEEPS_, ROUGH_OUTPUT = sizeof(T_) == 2;
  static_assert(STEPS == 4 || STEPS == 8, "a thread takes half or all of a generator block");
  static_assert(!MASK || TILE % 8 == 0, "a tile holds whole generator blocks");
};

// Arguments that forward and backward share, in the order in which they end both lists. Pointers
// are device memory that must stay alive until the stream has passed the kernel; nothing that is
// written may overlap anything else.
struct Common {
  const float* bias;        // [G*H], added to the gates before activation; null: zero
  const i64* lengths;       // [B], clamped to 0..T; null: all T
  const u64* seed;          // [1]; read only with a mask, like rows and t0
  const i64* rows;          // [B], row of the mask that a sequence uses
  const i64* t0;            // [B], steps processed before this call
  int steps, hidden;        // T, H
  int tiles;                // checkpoints per sequence: ceil((T + (mask ? 7 : 0)) / TILE)
  i64 pre_step, pre_batch;  // elements of `pre` from one step / one sequence to the next
  u32 threshold;            // of the mask: round(p * 65536)
  float rest;               // 1 - p, for the expectation
  int layer, stream;        // words 2 and 3 of the mask's counter
  int reverse;              // 1: process each sequence's valid steps from last to first
};

// What one thread works on.
template <class K> struct Thread {
  int lane, segment, batch, channel, length, shift;
  bool own;  // its channels exist; other threads compute the last ones again and write nothing
  float bias[K::GATES][K::V];
  u64 seed;
  u32 unit, first_block, threshold, layer, stream;
  float rest;

  QB_HD explicit Thread(const Common& a) {
    const int blocks = (a.hidden + K::SPAN - 1) / K::SPAN;
    lane = threadIdx.x % K::LANES;
    segment = threadIdx.x / K::LANES;
    batch = blockIdx.x / blocks;
    channel = (blockIdx.x % blocks) * K::SPAN + lane * K::V;
    own = channel < a.hidden;
    if (!own) channel = a.hidden - K::V;
    const i64 given = a.lengths ? a.lengths[batch] : a.steps;
    length = given < 0 ? 0 : given > a.steps ? a.steps : (int)given;
    shift = 0;
    rest = a.rest;
    if (K::MASK) {
      const i64 start = a.t0[batch];
      seed = *a.seed;
      unit = (u32)((u64)a.rows[batch] * (u64)a.hidden + (u64)channel);
      shift = (int)(start & 7);
      first_block = (u32)(start >> 3);
      threshold = a.threshold;
      layer = a.layer;
      stream = a.stream;
    }
#pragma unroll
    for (int g = 0; g < K::GATES; ++g)
#pragma unroll
      for (int v = 0; v < K::V; ++v) {
        const float b = a.bias ? a.bias[g * a.hidden + channel + v] : 0.0f;
        const bool rough = g == GATE_O && K::ROUGH_OUTPUT;
        bias[g][v] = g == GATE_Z ? b : rough ? 0.5f * b : -QB_LOG2E * b;
      }
  }

  // Bit l of the result: zoneout holds channel v in this thread's step l of the tile at `first`.
  QB_HD u32 held(int first, int v) const {
    const int position = first + segment * K::STEPS;
    u32 words[4];
    philox4x32(seed, unit + (u32)v, first_block + (u32)(position >> 3), layer, stream, words);
    if (K::STEPS == 4 && (position & 4)) {
      words[0] = words[2];
      words[1] = words[3];
    }
    u32 bits = 0;
#pragma unroll
    for (int l = 0; l < K::STEPS; ++l)
      bits |= (u32)(uniform16(words[l >> 1], l) < threshold) << l;
    return bits;
  }

  // How much of f zoneout lets through, as in `mix`.
  QB_HD float slope(bool hold) const {
    return K::MASK ? (hold ? 0.0f : 1.0f) : K::Z == ZONE_EXPECT ? rest : 1.0f;
  }
  QB_HD float tanh_gate(float raw, int v) const { return device_tanh(raw + bias[GATE_Z][v]); }
  QB_HD float gate(int g, float raw, int v) const { return device_sigmoid(raw, bias[g][v]); }
  QB_HD float output_gate(float raw, int v) const {
    const float b = bias[K::P == POOL_F ? 0 : GATE_O][v];
    if (K::ROUGH_OUTPUT) return fmaf(0.5f, tanh_rough(fmaf(raw, 0.5f, b)), 0.5f);
    return device_sigmoid(raw, b);
  }
  // Whether step t of processing order exists; a tile without an EDGE has only such steps.
  template <bool EDGE> QB_HD bool valid(int t) const { return !EDGE || (t >= 0 && t < length); }
  // The step to read in place of t: itself, or the nearest that exists.
  template <bool EDGE> QB_HD int readable(int t) const {
    return EDGE ? max(0, min(t, length - 1)) : t;
  }
};

// A place in a [T, B, ...] tensor, walked in processing order.
template <class T> struct Line {
  T* base;
  i64 step;

  QB_HD Line(T* tensor, i64 step_, i64 offset, int length, int reverse) {
    base = tensor + offset + (reverse ? (length - 1) * step_ : 0);
    step = reverse ? -step_ : step_;
  }
  QB_HD T* at(int t) const { return base + t * step; }
};

// The map c -> a c + b of one segment and channel: 8 bytes, one shared-memory operation.
struct alignas(8) Affine {
  float a, b;
  QB_HD float of(float c) const { return fmaf(a, c, b); }
};

// Index of (buffer, map, segment, channel v, lane) in the exchange of MAPS maps per channel.
template <class K, int MAPS> QB_HD int slot(int buffer, int map, int segment, int v, int lane) {
  return (((buffer * MAPS + map) * K::SEGMENTS + segment) * K::V + v) * K::LANES + lane;
}

}  // namespace qb
