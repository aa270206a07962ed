// Scratch memory of one thread that grows to the largest request and stays for later calls.
#ifndef QUASIBENCH_ARENA_CPU_H
#define QUASIBENCH_ARENA_CPU_H
#include <stdint.h>
#include <stdlib.h>

#include <new>

namespace qb {

class Arena {
 public:
  ~Arena() { free(memory_); }

  // Makes room for `bytes`, and takes everything back that was given before.
  void reset(int64_t bytes) {
    used_ = 0;
    if (bytes <= size_) return;
    free(memory_);
    memory_ = nullptr;
    size_ = 0;
    if (posix_memalign((void**)&memory_, 64, (size_t)bytes)) throw std::bad_alloc();
    size_ = bytes;
  }

  template <class T> static int64_t room(int64_t count) {
    return (count * (int64_t)sizeof(T) + 63) / 64 * 64;
  }
  template <class T> T* take(int64_t count) {
    T* given = (T*)(memory_ + used_);
    used_ += room<T>(count);
    return given;
  }

 private:
  char* memory_ = nullptr;
  int64_t size_ = 0, used_ = 0;
};

}  // namespace qb
#endif
