// One pass of a whole layer, whoever calls it: picks format, pooling and zoneout.
#ifndef QUASIBENCH_LAYER_PASS_CPU_H
#define QUASIBENCH_LAYER_PASS_CPU_H
#include "layer_backward_cpu.h"
#include "layer_cpu.h"

namespace qb {

template <class IO, int P, int Z>
static void back_block(const qb_call& a, int64_t b, int64_t first, int64_t own) {
  Backward<IO, P, Z>::block(a, b, first, (int)own);
}
template <class IO, int P> static PoolBlock block_for_zone(const qb_call& a, bool back) {
  if (a.zone == ZONE_HOLD)
    return back ? back_block<IO, P, ZONE_HOLD> : Forward<IO, P, ZONE_HOLD>::block;
  if (a.zone == ZONE_EXPECT)
    return back ? back_block<IO, P, ZONE_EXPECT> : Forward<IO, P, ZONE_EXPECT>::block;
  return back ? back_block<IO, P, ZONE_NONE> : Forward<IO, P, ZONE_NONE>::block;
}
template <class IO> static PoolBlock block_for(const qb_call& a, bool back) {
  if (a.pooling == POOL_F) return block_for_zone<IO, POOL_F>(a, back);
  if (a.pooling == POOL_FO) return block_for_zone<IO, POOL_FO>(a, back);
  return block_for_zone<IO, POOL_IFO>(a, back);
}

template <class IO> static void pass(Layer& layer, bool back) {
  layer.pool = block_for<IO>(layer.call, back);
  if (back) {
    LayerBackward<IO>::run(layer);
    return;
  }
  LayerForward<IO>::run(layer);
  if (layer.call.taps > 1) final_window<IO>(layer.call);
}

// The states' start, the zeros of `dwindow` and `spacing` are the caller's.
static void run_layer(Layer& layer, bool back) {
  if (layer.call.format == 0) pass<float>(layer, back);
  if (layer.call.format == 1) pass<bf16>(layer, back);
  if (layer.call.format == 2) pass<double>(layer, back);
}

}  // namespace qb
#endif
