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

// What GCC calls for `#pragma omp parallel`; every OpenMP library has it.
using OpenMP = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

// The process's OpenMP, which is torch's and has its threads running. They do not survive a fork,
// and a child that used it would hang.
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
    // No more threads can be started: this one and those that were do the work.
  }
  work(context);
  for (std::thread& thread : others) thread.join();
}

}  // namespace lc
