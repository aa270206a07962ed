// Threads of XLA's own pool, in the place of OpenMP's: a second pool would fight it for the cores.
#ifndef QUASIBENCH_XLA_THREADS_H
#define QUASIBENCH_XLA_THREADS_H
#include <atomic>
#include <thread>

#include "parallel.h"
#include "xla/ffi/api/c_api.h"

namespace qb {

// The call that this thread is in.
static thread_local const XLA_FFI_Api* api_now = nullptr;
static thread_local XLA_FFI_ExecutionContext* context_now = nullptr;

static void forget(const XLA_FFI_Api* api, XLA_FFI_Error* error) {
  XLA_FFI_Error_Destroy_Args args = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE,
                                     nullptr, error};
  api->XLA_FFI_Error_Destroy(&args);
}

// Threads of XLA's pool; 1 where it has none.
static int64_t pool_size() {
  int64_t size = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE,
                                             nullptr, context_now, &size};
  if (XLA_FFI_Error* error = api_now->XLA_FFI_ThreadPool_NumThreads(&args)) {
    forget(api_now, error);
    return 1;
  }
  return size < 1 ? 1 : size;
}

// One fork. A helper that the pool starts late finds the door shut and goes home, so the caller
// waits for those at work only, and a pool without a free thread stops nobody.
struct Team {
  void (*body)(void*);
  void* data;
  std::atomic<int64_t> inside, holders;

  static const int64_t SHUT = int64_t(1) << 40;

  void release() {
    if (holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  static void help(void* given) {
    Team* team = static_cast<Team*>(given);
    if (team->inside.fetch_add(1, std::memory_order_acquire) < SHUT) team->body(team->data);
    team->inside.fetch_sub(1, std::memory_order_release);
    team->release();
  }
};

static inline void pause_briefly(int64_t round) {
  if (round > 2000) {
    std::this_thread::yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Shuts the door and waits for those inside, however the caller leaves: what they work on is his.
struct Meeting {
  Team* team;
  ~Meeting() {
    team->inside.fetch_add(Team::SHUT, std::memory_order_acq_rel);
    for (int64_t round = 0; team->inside.load(std::memory_order_acquire) % Team::SHUT; ++round)
      pause_briefly(round);
    team->release();
  }
};

// As GOMP_parallel, which parallel.h expects; `body` throws nothing.
static void fork_on_xla(void (*body)(void*), void* data, unsigned threads, unsigned) {
  Team* team = new Team{body, data, {0}, {1}};
  const Meeting meeting = {team};
  for (unsigned helper = 1; helper < threads; ++helper) {
    team->holders.fetch_add(1, std::memory_order_relaxed);
    XLA_FFI_ThreadPool_Schedule_Args args = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, nullptr,
                                             context_now, Team::help, team};
    if (XLA_FFI_Error* error = api_now->XLA_FFI_ThreadPool_Schedule(&args)) {
      forget(api_now, error);
      team->release();
      break;
    }
  }
  body(data);
}

}  // namespace qb
#endif
