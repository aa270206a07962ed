// What the forward and the backward pooling share: blocks of channels, order, zoneout's mask.
#ifndef QUASIBENCH_BLOCKS_CPU_H
#define QUASIBENCH_BLOCKS_CPU_H
#include "pool.h"
#include "pool_cpu.h"
#include "window_cpu.h"

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

}  // namespace qb
#endif
