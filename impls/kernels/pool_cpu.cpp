// The functions of the C interface on a CPU: whole layers, and their pieces. Pooling is vectorised
// over channels, threads over batch and blocks of channels, whose size never depends on the threads.
#include "pool_cpu.h"

#include "layer_pass_cpu.h"
#include "parallel.h"
#include "pool.h"
#include "window_cpu.h"

#define QB_API extern "C" __attribute__((visibility("default")))

namespace qb {

// All blocks of one chunk.
template <class IO> static void pool_chunk(const qb_call& a, bool back) {
  const int64_t width = block_width(a, back ? BACKWARD : FORWARD);
  const int64_t blocks = (a.hidden + width - 1) / width;
  const int64_t elements = (a.end - a.begin) * a.batch * a.hidden;
  const PoolBlock block = block_for<IO>(a, back);
  parallel_for(a.batch * blocks, elements, a.threads, [&](int64_t task) {
    const int64_t first = task % blocks * width;
    block(a, task / blocks, first, first + width < a.hidden ? width : a.hidden - first);
  });
}

static void pool(const qb_call& a, bool back) {
  if (a.format == 0) pool_chunk<float>(a, back);
  if (a.format == 1) pool_chunk<bf16>(a, back);
  if (a.format == 2) pool_chunk<double>(a, back);
}

// 0, or 1 where there is no memory for the caller's scratch area.
static int64_t layer(const qb_layer& given, bool back) {
  Layer layer;
  static_cast<qb_layer&>(layer) = given;
  try {
    run_layer(layer, back);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

// Rows 1.. added to row 0 in this order, whatever the threads.
template <class S> static void sum_rows(S* rows, int64_t count, int64_t width) {
  for (int64_t row = 1; row < count; ++row)
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) rows[j] += rows[row * width + j];
}

}  // namespace qb

QB_API int64_t qb_abi(void) { return QB_ABI * 4096 + (int64_t)sizeof(qb_layer); }
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
QB_API int64_t qb_layer_forward(const qb_layer* given) { return qb::layer(*given, false); }
QB_API int64_t qb_layer_backward(const qb_layer* given) { return qb::layer(*given, true); }
