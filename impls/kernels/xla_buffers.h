// What XLA hands over, compared with what a call has to be given, and the errors it gets back.
#ifndef QUASIBENCH_XLA_BUFFERS_H
#define QUASIBENCH_XLA_BUFFERS_H
#include <stdint.h>
#include <stdio.h>

#include <initializer_list>

#include "pool.h"
#include "xla/ffi/api/c_api.h"

namespace qb {

static XLA_FFI_Error* refuse(XLA_FFI_CallFrame* frame, const char* message,
                             XLA_FFI_Error_Code code = XLA_FFI_Error_Code_INVALID_ARGUMENT) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, nullptr, message, code};
  return frame->api->XLA_FFI_Error_Create(&args);
}

// Compares arguments and results one after the other, and keeps the first that does not fit.
struct Signature {
  XLA_FFI_CallFrame* frame;
  int64_t arguments, results;
  char misfit[80];

  explicit Signature(XLA_FFI_CallFrame* given)
      : frame(given), arguments(0), results(0), misfit() {}

  const XLA_FFI_Buffer* argument_at(int64_t place) const {
    return place < frame->args.size ? (const XLA_FFI_Buffer*)frame->args.args[place] : nullptr;
  }
  const XLA_FFI_Buffer* result_at(int64_t place) const {
    return place < frame->rets.size ? (const XLA_FFI_Buffer*)frame->rets.rets[place] : nullptr;
  }
  void argument(const char* name, XLA_FFI_DataType type, std::initializer_list<int64_t> dims) {
    compare("argument", name, arguments, argument_at(arguments), type, dims);
    ++arguments;
  }
  void result(const char* name, XLA_FFI_DataType type, std::initializer_list<int64_t> dims) {
    compare("result", name, results, result_at(results), type, dims);
    ++results;
  }
  void miss(const char* what) {
    if (!misfit[0]) snprintf(misfit, sizeof misfit, "%s", what);
  }
  bool fits() const {
    return !misfit[0] && arguments == frame->args.size && results == frame->rets.size;
  }

 private:
  void compare(const char* kind, const char* name, int64_t place, const XLA_FFI_Buffer* given,
               XLA_FFI_DataType type, std::initializer_list<int64_t> dims) {
    bool same = given && given->dtype == type && given->rank == (int64_t)dims.size();
    for (int64_t k = 0; same && k < given->rank; ++k) same = given->dims[k] == dims.begin()[k];
    if (!same && !misfit[0])
      snprintf(misfit, sizeof misfit, "%s %d, %s", kind, (int)place, name);
  }
};

// Compares every buffer with the head of layer_xla.cpp; x and the first weights tell the sizes.
template <class How>
static void compare(Signature& call, const How& how, bool back) {
  const XLA_FFI_Buffer *x = call.argument_at(0), *weight = call.argument_at(2);
  if (!x || !weight || x->rank != 3 || weight->rank != 3) return call.miss("x or the first weights");
  const int64_t T = x->dims[0], B = x->dims[1], C = x->dims[2], K = weight->dims[0],
                H = weight->dims[2], G = how.pooling + 2;
  const XLA_FFI_DataType io = x->dtype, U = XLA_FFI_DataType_U32,
                         S = io == XLA_FFI_DataType_F64 ? io : XLA_FFI_DataType_F32;
  if (io != S && io != XLA_FFI_DataType_BF16) return call.miss("the dtype of x");
  if (T < 1 || B < 1 || C < 1 || K < 1 || H < 1) return call.miss("a size below 1");
  if (how.pooling < POOL_F || how.pooling > POOL_IFO) return call.miss("the pooling");
  if (how.spacing < 1 || how.spacing > QB_SEGMENT) return call.miss("the spacing");
  const int64_t N = (T + how.spacing - 1) / how.spacing;
  call.argument("x", io, {T, B, C});
  call.argument("c", S, {B, H});
  for (int64_t gate = 0; gate < G; ++gate) call.argument("weights", io, {K, C, H});
  for (int64_t gate = 0; gate < G; ++gate) call.argument("biases", S, {H});
  if (K > 1) call.argument("window", io, {K - 1, B, C});
  if (how.ragged) call.argument("lengths", XLA_FFI_DataType_S32, {B});
  if (how.zone == ZONE_HOLD) {
    call.argument("seed", U, {2});
    call.argument("rows", U, {B});
    call.argument("t0", U, {2, B});
  }
  if (!back) {
    call.result("y", io, {T, B, H});
    call.result("c", S, {B, H});
    if (K > 1) call.result("window", io, {K - 1, B, C});
    if (how.saves) call.result("pre", io, {T, B, G * H});
    if (how.saves) call.result("checkpoints", S, {N, B, H});
    return;
  }
  call.argument("pre", io, {T, B, G * H});
  call.argument("checkpoints", S, {N, B, H});
  call.argument("dy", io, {T, B, H});
  call.argument("dc", S, {B, H});
  if (K > 1) call.argument("dwindow", io, {K - 1, B, C});
  call.result("dc", S, {B, H});
  for (int64_t gate = 0; gate < G; ++gate) call.result("dbiases", S, {H});
  if (how.for_inputs) call.result("dx", io, {T, B, C});
  if (how.for_inputs && K > 1) call.result("dwindow", io, {K - 1, B, C});
  for (int64_t gate = 0; how.for_weights && gate < G; ++gate)
    call.result("dweights", io, {K, C, H});
}

}  // namespace qb
#endif
