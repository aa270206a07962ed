// Threads of the host's own OpenMP runtime, called through a pointer that the loader sets, so that
// no second pool of spinning threads competes with the framework's.
#ifndef QUASIBENCH_PARALLEL_H
#define QUASIBENCH_PARALLEL_H
#include <stdint.h>

#include <atomic>
#include <new>

namespace qb {

typedef void (*Fork)(void (*)(void*), void*, unsigned, unsigned);  // GOMP_parallel
static Fork fork_threads = nullptr;

static const int64_t WORTH_FORKING = 8192;  // elements; below, waking a thread costs more

template <class F> struct Job {
  const F* body;
  int64_t tasks, grain;
  std::atomic<int64_t> next;
  std::atomic<bool> starved;  // a task found no memory
};

// Throws nothing: no exception may cross the runtime that calls it, nor leave `Job` while other
// threads work on it.
template <class F> static void work_off(void* data) noexcept {
  Job<F>& job = *static_cast<Job<F>*>(data);
  for (;;) {
    const int64_t first = job.next.fetch_add(job.grain, std::memory_order_relaxed);
    if (first >= job.tasks) return;
    const int64_t stop = first + job.grain < job.tasks ? first + job.grain : job.tasks;
    try {
      for (int64_t task = first; task < stop; ++task) (*job.body)(task);
    } catch (const std::bad_alloc&) {
      job.starved.store(true, std::memory_order_relaxed);
      job.next.store(job.tasks, std::memory_order_relaxed);
    }
  }
}

// body(task) for every task; which thread does a task never changes what it computes. Throws
// std::bad_alloc, once every thread is out, where a task did.
template <class F>
static void parallel_for(int64_t tasks, int64_t elements, int64_t threads, const F& body) {
  if (threads < 2 || tasks < 2 || elements < WORTH_FORKING || !fork_threads) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  Job<F> job;
  job.body = &body;
  job.tasks = tasks;
  const int64_t portions = 8 * threads;
  job.grain = (tasks + portions - 1) / portions;
  job.next = 0;
  job.starved = false;
  fork_threads(work_off<F>, &job, (unsigned)(threads < tasks ? threads : tasks), 0);
  if (job.starved) throw std::bad_alloc();
}

}  // namespace qb
#endif
