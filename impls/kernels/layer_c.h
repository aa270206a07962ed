// The C interface of a whole layer: one argument block, two functions. Mirrored by `LayerCall` in
// native.py; which pointers each pass reads: README.md beside this file.
#ifndef QUASIBENCH_LAYER_C_H
#define QUASIBENCH_LAYER_C_H
#include "pool_cpu.h"

typedef struct qb_layer {
  qb_call call;
  int64_t chunk;  // steps that are multiplied and pooled at once, a multiple of call.spacing
  // Gate g's weights [K*C][H]: rows lie weight_row elements apart, columns adjacent.
  const void* weight[4];
  int64_t weight_row;
  void* dweight[4];  // null: not wanted
  int64_t dweight_row;
  void* dbias[4];  // [H] of each gate
} qb_layer;

#endif
