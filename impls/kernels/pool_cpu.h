// The C interface of the CPU kernels: one argument block, six functions (a whole layer: layer_c.h). Shapes, lifetime and
// aliasing of every pointer: README.md beside this file. Mirrored by `Call` in native.py.
#ifndef QUASIBENCH_POOL_CPU_H
#define QUASIBENCH_POOL_CPU_H
#include <stdint.h>

#define QB_ABI 2
#define QB_SEGMENT 16  // most steps between two checkpoints

typedef struct qb_call {
  // what is computed
  int64_t format;   // of x, weights, y: 0 float32, 1 bfloat16, 2 float64
  int64_t pooling;  // 0 f, 1 fo, 2 ifo
  int64_t zone;     // 0 none, 1 hold (training), 2 expectation
  int64_t keeps_state;
  int64_t reverse;
  int64_t threads;
  // sizes
  int64_t steps, batch, features, hidden, taps;
  int64_t begin, end;  // the chunk: natural steps begin <= t < end
  int64_t spacing;     // steps between checkpoints, at most QB_SEGMENT; divides every `begin`
  // sequences and mask
  const int64_t *lengths, *rows, *t0;
  uint64_t seed;
  int64_t threshold, layer, stream;
  double expectation;
  // convolution
  const void* x;
  int64_t x_time, x_batch;  // strides in elements; channels are adjacent
  const void* window;
  void* unfolded;
  void* window_last;
  // pooling forward
  const void* pre;
  const void* bias;
  void* c;
  void* y;
  int64_t y_time, y_batch;
  void* checkpoints;
  // pooling backward
  const void* dy;
  int64_t dy_time, dy_batch;
  void* dc;
  void* dpre;
  void* dbias;
  // convolution backward
  const void* dunfolded;
  const void* dwindow_last;
  void* carry;
  void* dx;
  void* dwindow;
} qb_call;

#endif
