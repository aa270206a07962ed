// What XLA hands over, compared with what a call has to be given, and the errors it gets back.
#ifndef QUASIBENCH_XLA_BUFFERS_H
#define QUASIBENCH_XLA_BUFFERS_H
#include <stdint.h>
#include <stdio.h>

#include <initializer_list>

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

}  // namespace qb
#endif
