// The unchanged CUDA source as a CPU shared object. SOURCE is its path; EXPRESSION the kernel that
// is instantiated, exported as `run(blocks, threads, shared_bytes, kernel's arguments...)`.
#include "shim.h"

#include SOURCE

namespace qb {
Affine exchange[6 * 1024];  // 48 KiB: what a block gets without asking
}

template <auto KERNEL>
struct Launcher;

template <class... A, void (*KERNEL)(A...)>
struct Launcher<KERNEL> {
  struct Call {
    std::tuple<A...> arguments;
  };
  static void thread(void* call) { std::apply(KERNEL, static_cast<Call*>(call)->arguments); }
  static int run(int blocks, int threads, int shared_bytes, A... arguments) {
    Call call{std::tuple<A...>(arguments...)};
    size_t size = sizeof(qb::exchange) / sizeof(float);
    float* shared = reinterpret_cast<float*>(qb::exchange);
    return shim::launch(blocks, threads, shared_bytes / sizeof(float), shared, size,
                        thread, &call);
  }
};

extern "C" {
extern void* const run = (void*)&Launcher<&EXPRESSION>::run;
}
