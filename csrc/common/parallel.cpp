#include "common/parallel.h"

#include <system_error>
#include <thread>

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace lc {
namespace {

#if defined(__linux__)

// As GCC calls it for `#pragma omp parallel`, and every OpenMP library offers it.
using OpenMP = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

// The OpenMP of the process, torch's own, whose threads are there already. Its team does not
// survive a fork, and a child that asked it for one would wait for ever.
OpenMP openmp() {
  static std::atomic<bool> forked{false};
  static const OpenMP found = [] {
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
    return reinterpret_cast<OpenMP>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  }();
  return forked ? nullptr : found;
}

#endif

}  // namespace

void run_team(int64_t workers, void (*work)(void*), void* context) {
  if (workers == 1) return work(context);
#if defined(__linux__)
  if (const OpenMP parallel = openmp())
    return parallel(work, context, static_cast<unsigned>(workers), 0);
#endif
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(workers));
  try {
    for (int64_t i = 1; i < workers; ++i) others.emplace_back(work, context);
  } catch (const std::system_error&) {
    // No more threads to be had: those that started, and this one, do the work.
  }
  work(context);
  for (std::thread& thread : others) thread.join();
}

}  // namespace lc
