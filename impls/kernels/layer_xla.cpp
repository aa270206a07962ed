// The QRNN layer as two custom calls of XLA on the CPU, forward and backward.
//
// Arguments and results by position; [..] only where `how` says so. "per gate": one array each, in
// the order z f o i. IO, S as in README.md.
//   forward   x [T,B,C] IO, c [B,H] S, weights per gate [K,C,H] IO, biases per gate [H] S,
//             [window [K-1,B,C] IO], [lengths [B] i32], [seed [2] u32, rows [B] u32, t0 [2,B] u32]
//          -> y [T,B,H] IO, c [B,H] S, [window], [pre [T,B,G*H] IO, checkpoints [N,B,H] S]
//   backward  the forward's, then pre, checkpoints, dy [T,B,H], dc [B,H], [dwindow]
//          -> dc [B,H] S, dbiases per gate, [dx [T,B,C], [dwindow [K-1,B,C]]], [dweights per gate]
#include <vector>

#include "layer_pass_cpu.h"
#include "xla_buffers.h"
#include "xla_threads.h"

#define QB_API extern "C" __attribute__((visibility("default")))

namespace qb {

// The attribute `how`, in this order.
struct How {
  int64_t pooling, zone, keeps_state, reverse, threshold, layer, stream, spacing, ragged,
      for_inputs, for_weights, saves;
};

static const int64_t ROWS = 512;  // steps times sequences of a chunk
static std::atomic<int64_t> threads_seen(0);

// Integers widened for one call.
static thread_local std::vector<int64_t> lengths_now, rows_now, begins_now;

// Reads arguments and results one after the other.
struct Frame {
  XLA_FFI_CallFrame* frame;
  int64_t read, written;
  bool short_of;

  const XLA_FFI_Buffer* argument() {
    if (read >= frame->args.size) short_of = true;
    return short_of ? nullptr : (const XLA_FFI_Buffer*)frame->args.args[read++];
  }
  const void* next() {
    const XLA_FFI_Buffer* given = argument();
    return given ? given->data : nullptr;
  }
  void* result() {
    if (written >= frame->rets.size) short_of = true;
    return short_of ? nullptr : ((XLA_FFI_Buffer*)frame->rets.rets[written++])->data;
  }
  bool whole() const {
    return !short_of && read == frame->args.size && written == frame->rets.size;
  }
};

static void sequences(Frame& frame, const How& how, qb_call& a) {
  if (how.ragged) {
    const int32_t* lengths = (const int32_t*)frame.next();
    lengths_now.assign(lengths, lengths + a.batch);
    a.lengths = lengths_now.data();
  }
  if (how.zone == ZONE_HOLD) {
    const u32 *seed = (const u32*)frame.next(), *rows = (const u32*)frame.next(),
              *begins = (const u32*)frame.next();
    a.seed = seed[0] | (u64)seed[1] << 32;
    rows_now.assign(rows, rows + a.batch);
    begins_now.resize((size_t)a.batch);
    for (int64_t b = 0; b < a.batch; ++b)
      begins_now[(size_t)b] = (int64_t)(begins[b] | (u64)begins[a.batch + b] << 32);
    a.rows = rows_now.data();
    a.t0 = begins_now.data();
  }
}

// Biases of all gates side by side.
static void* gather_biases(Frame& frame, const Layer& layer, std::vector<double>& memory) {
  const size_t each = (size_t)layer.call.hidden * (layer.call.format == 2 ? 8 : 4);
  memory.resize((each * (size_t)layer.gates() + 7) / 8);
  for (int64_t gate = 0; gate < layer.gates(); ++gate)
    memcpy((char*)memory.data() + each * (size_t)gate, frame.next(), each);
  return memory.data();
}

static bool describe(Frame& frame, const How& how, double expectation, Layer& layer,
                     const void** c) {
  static thread_local std::vector<double> biases;
  qb_call& a = layer.call;
  const XLA_FFI_Buffer* x = frame.argument();
  *c = frame.next();
  a.format = x->dtype == XLA_FFI_DataType_F32 ? 0 : x->dtype == XLA_FFI_DataType_BF16 ? 1 : 2;
  a.pooling = how.pooling;
  a.zone = how.zone;
  a.keeps_state = how.keeps_state;
  a.reverse = how.reverse;
  a.threshold = how.threshold;
  a.layer = how.layer;
  a.stream = how.stream;
  a.expectation = expectation;
  a.threads = pool_size();
  threads_seen = a.threads;
  a.steps = x->dims[0];
  a.batch = x->dims[1];
  a.features = x->dims[2];
  a.x = x->data;
  a.x_time = a.batch * a.features;
  a.x_batch = a.features;
  a.spacing = how.spacing;
  layer.chunk = ROWS / a.batch / a.spacing * a.spacing;
  if (!layer.chunk) layer.chunk = a.spacing;
  for (int64_t gate = 0; gate < layer.gates(); ++gate) {
    const XLA_FFI_Buffer* weight = frame.argument();
    layer.weight[gate] = weight->data;
    a.taps = weight->dims[0];
    a.hidden = weight->dims[2];
  }
  layer.weight_row = layer.dweight_row = a.hidden;
  a.bias = gather_biases(frame, layer, biases);
  if (a.taps > 1) a.window = frame.next();
  sequences(frame, how, a);
  return !frame.short_of;
}

static bool forward(Frame& frame, const How& how, Layer& layer, const void* c) {
  qb_call& a = layer.call;
  a.y = frame.result();
  a.y_time = a.batch * a.hidden;
  a.y_batch = a.hidden;
  a.c = frame.result();
  if (a.taps > 1) a.window_last = frame.result();
  a.pre = how.saves ? frame.result() : nullptr;
  a.checkpoints = how.saves ? frame.result() : nullptr;
  if (!frame.whole()) return false;
  memcpy(a.c, c, (size_t)(a.batch * a.hidden) * (a.format == 2 ? 8 : 4));
  run_layer(layer, false);
  return true;
}

static bool backward(Frame& frame, const How& how, Layer& layer) {
  qb_call& a = layer.call;
  const size_t state = a.format == 2 ? 8 : 4, io = a.format == 2 ? 8 : a.format == 0 ? 4 : 2;
  a.pre = frame.next();
  a.checkpoints = const_cast<void*>(frame.next());
  a.dy = frame.next();
  a.dy_time = a.batch * a.hidden;
  a.dy_batch = a.hidden;
  const void* dc = frame.next();
  if (a.taps > 1) a.dwindow_last = frame.next();
  a.dc = frame.result();
  for (int64_t gate = 0; gate < layer.gates(); ++gate) layer.dbias[gate] = frame.result();
  if (how.for_inputs) {
    a.dx = frame.result();
    if (a.taps > 1) a.dwindow = frame.result();
  }
  for (int64_t gate = 0; how.for_weights && gate < layer.gates(); ++gate)
    layer.dweight[gate] = frame.result();
  if (!frame.whole()) return false;
  memcpy(a.dc, dc, (size_t)(a.batch * a.hidden) * state);
  if (a.dwindow) memset(a.dwindow, 0, (size_t)((a.taps - 1) * a.batch * a.features) * io);
  run_layer(layer, true);
  return true;
}

static XLA_FFI_Error* run_call(XLA_FFI_CallFrame* frame, const How& how, double expectation,
                               bool back) {
  Signature signature(frame);
  compare(signature, how, back);
  bool fits = signature.fits();
  if (fits) {
    api_now = frame->api;
    context_now = frame->ctx;
    Layer layer = {};
    Frame reader = {frame, 0, 0, false};
    const void* c;
    fits = describe(reader, how, expectation, layer, &c);
    if (fits) fits = back ? backward(reader, how, layer) : forward(reader, how, layer, c);
  }
  if (fits) return nullptr;
  char message[200];
  snprintf(message, sizeof message,
           "the QRNN layer has arguments or results that do not fit: %s",
           signature.misfit[0] ? signature.misfit : "their number");
  return refuse(frame, message);
}

// Attributes are sorted by name: expectation, how.
static XLA_FFI_Error* handle(XLA_FFI_CallFrame* frame, bool back) {
  for (auto* found = frame->extension_start; found; found = found->next) {
    if (found->type != XLA_FFI_Extension_Metadata) continue;
    XLA_FFI_Metadata* metadata = ((XLA_FFI_Metadata_Extension*)found)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    return nullptr;
  }
  const XLA_FFI_Attrs& attrs = frame->attrs;
  if (attrs.size != 2 || attrs.types[0] != XLA_FFI_AttrType_SCALAR ||
      attrs.types[1] != XLA_FFI_AttrType_ARRAY)
    return refuse(frame, "the QRNN layer takes the attributes expectation and how");
  const XLA_FFI_Array* numbers = (const XLA_FFI_Array*)attrs.attrs[1];
  const XLA_FFI_Scalar* expectation = (const XLA_FFI_Scalar*)attrs.attrs[0];
  if (numbers->size * 8 != sizeof(How) || numbers->dtype != XLA_FFI_DataType_S64 ||
      expectation->dtype != XLA_FFI_DataType_F64)
    return refuse(frame, "the QRNN layer was called by another version of its Python side");
  How how;
  memcpy(&how, numbers->data, sizeof how);
  try {
    return run_call(frame, how, *(const double*)expectation->value, back);
  } catch (const std::bad_alloc&) {
    return refuse(frame,
                  "the QRNN layer found no memory for its working space: free some, or give fewer "
                  "channels, taps, sequences or threads",
                  XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
  }
}

static const struct ForkOnXla {
  ForkOnXla() { fork_threads = fork_on_xla; }
} set_once_while_loading;

}  // namespace qb

QB_API int64_t qb_threads_of_last_call(void) { return qb::threads_seen; }
QB_API XLA_FFI_Error* qb_layer_forward(XLA_FFI_CallFrame* frame) {
  return qb::handle(frame, false);
}
QB_API XLA_FFI_Error* qb_layer_backward(XLA_FFI_CallFrame* frame) {
  return qb::handle(frame, true);
}
