// CUDA on the CPU, as little as the pooling kernels need: blocks one after another, one fiber per
// thread, __syncthreads hands over to the next. Between two barriers the threads run in a shuffled
// order, shared memory begins as NaN in every block, and what is written beyond it is noticed.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __shared__
#define __syncthreads() shim::barrier()

using std::max;
using std::min;
struct Index {
  unsigned x = 0;
};
static Index threadIdx, blockIdx;

static inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}

namespace shim {

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  bool done;
  int barriers;
};

constexpr unsigned POISON = 0x7fc0dead;  // a NaN that no computation makes
static ucontext_t scheduler;
static Fiber* running;
static void (*body)(void*);
static void* arguments;
static unsigned long long random_state = 88172645463325252ull;

static unsigned next_random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (unsigned)(random_state >> 32);
}

static void barrier() {
  running->barriers++;
  swapcontext(&running->context, &scheduler);
}

static void enter() {
  body(arguments);
  running->done = true;
  swapcontext(&running->context, &scheduler);
}

static void prepare(Fiber& fiber) {
  if (fiber.stack.empty()) fiber.stack.resize(128 * 1024);
  fiber.done = false;
  fiber.barriers = 0;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.data();
  fiber.context.uc_stack.ss_size = fiber.stack.size();
  fiber.context.uc_link = &scheduler;
  makecontext(&fiber.context, enter, 0);
}

// Runs one block; false where its threads do not all meet at the same barriers.
static bool run_block(std::vector<Fiber>& fibers) {
  std::vector<unsigned> order(fibers.size());
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  for (Fiber& fiber : fibers) prepare(fiber);
  for (;;) {
    for (unsigned i = (unsigned)order.size() - 1; i > 0; --i)
      std::swap(order[i], order[next_random() % (i + 1)]);
    size_t done = 0;
    for (unsigned i : order) {
      running = &fibers[i];
      threadIdx.x = i;
      swapcontext(&scheduler, &running->context);
      done += running->done;
    }
    if (done == fibers.size()) break;
    if (done) {
      fprintf(stderr, "shim: %zu of %zu threads left before a barrier\n", done, fibers.size());
      return false;
    }
  }
  for (Fiber& fiber : fibers)
    if (fiber.barriers != fibers[0].barriers) return false;
  return true;
}

// Runs `f(a)` as a grid; 0 = fine, 1 = divergent barriers, 2 = written beyond the shared memory.
static int launch(unsigned blocks, unsigned threads, size_t shared_floats, float* shared,
                  size_t shared_size, void (*f)(void*), void* a) {
  static std::vector<Fiber> fibers;
  fibers.resize(threads);
  body = f;
  arguments = a;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    for (size_t i = 0; i < shared_size; ++i) shared[i] = __uint_as_float(POISON);
    if (!run_block(fibers)) return 1;
    for (size_t i = shared_floats; i < shared_size; ++i)
      if (__float_as_uint(shared[i]) != POISON) return 2;
  }
  return 0;
}

}  // namespace shim
