// Rows over threads. Threads are made per call: a pool would not survive a fork of the process (a
// data loader's workers), and making one costs microseconds against milliseconds of work.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <vector>

namespace lc {

// Zeroed scratch memory, aligned for any vector.
struct AlignedFloats {
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  explicit AlignedFloats(int64_t count)
      : data(static_cast<float*>(
            ::operator new[](static_cast<size_t>(count) * sizeof(float), std::align_val_t{64}))) {
    std::fill_n(data.get(), count, 0.f);
  }
  std::unique_ptr<float[], Free> data;
};

// Calls work(task, scratch) for every task in [0, tasks), each thread with scratch of its own. The
// next free task goes to the next free thread; results must not depend on which.
template <typename Work>
void parallel_for(int64_t tasks, int threads, int64_t scratch_floats, const Work& work) {
  const int64_t workers = std::max<int64_t>(1, std::min<int64_t>(threads, tasks));
  std::vector<AlignedFloats> scratch;
  scratch.reserve(static_cast<size_t>(workers));
  for (int64_t i = 0; i < workers; ++i) scratch.emplace_back(scratch_floats);
  std::atomic<int64_t> next{0};
  const auto run = [&](int64_t worker) {
    for (int64_t task = next++; task < tasks; task = next++)
      work(task, scratch[static_cast<size_t>(worker)].data.get());
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(workers));
  try {
    for (int64_t i = 1; i < workers; ++i) others.emplace_back(run, i);
  } catch (const std::exception&) {
    // No more threads to be had: those that started, and this one, do the work.
  }
  run(0);
  for (std::thread& thread : others) thread.join();
}

}  // namespace lc
