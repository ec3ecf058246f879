// Tasks over threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace lc {

enum class Memory { zeroed, uninitialized };

// Scratch memory, aligned for any vector.
struct AlignedFloats {
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  explicit AlignedFloats(int64_t count, Memory memory = Memory::zeroed)
      : data(static_cast<float*>(
            ::operator new[](static_cast<size_t>(count) * sizeof(float), std::align_val_t{64}))) {
    if (memory == Memory::zeroed) std::fill_n(data.get(), count, 0.f);
  }
  std::unique_ptr<float[], Free> data;
};

// Calls work(context) on this thread and on up to `workers` − 1 others, and waits for them. Torch's
// own threads where possible: starting one costs as much as a small batch, and torch's, which spin
// while they wait, would keep a new one off the processor.
void run_team(int64_t workers, void (*work)(void*), void* context);

// Calls work(task, scratch) for every task in [0, tasks), each thread with scratch of its own. The
// next task goes to the next free thread; results must not depend on which.
template <typename Work>
void parallel_for(int64_t tasks, int threads, int64_t scratch_floats, const Work& work,
                  Memory memory = Memory::zeroed) {
  const int64_t workers = std::max<int64_t>(1, std::min<int64_t>(threads, tasks));
  std::vector<AlignedFloats> scratch;
  scratch.reserve(static_cast<size_t>(workers));
  for (int64_t i = 0; i < workers; ++i) scratch.emplace_back(scratch_floats, memory);
  std::atomic<int64_t> worker{0}, next{0};
  auto run = [&] {
    float* own = scratch[static_cast<size_t>(worker++)].data.get();
    for (int64_t task = next++; task < tasks; task = next++) work(task, own);
  };
  run_team(workers, [](void* context) { (*static_cast<decltype(run)*>(context))(); }, &run);
}

}  // namespace lc
