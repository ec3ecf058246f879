// apply_thresholds: chunks of tensors over threads.
#include <vector>

#include "apply_thresholds/kernel.h"
#include "bindings/arrays.h"
#include "common/parallel.h"
#include "simd/isa.h"

namespace lc {
namespace {

constexpr int64_t kChunk = 64 * 1024;  // weights of a task

struct Chunk {
  const MaskedTensor* tensor;
  int64_t from, to;
};

void apply(Isa isa, const Chunk& chunk) {
  LC_DISPATCH(isa, apply_threshold, *chunk.tensor, chunk.from, chunk.to)
}

void apply_thresholds(const std::vector<py::array>& pristine, std::vector<py::array> live,
                      const std::vector<double>& thresholds,
                      const std::vector<Array<float>>& saliency, std::optional<int64_t> seed,
                      int threads) {
  const size_t count = pristine.size();
  require(live.size() == count && thresholds.size() == count,
          "one live tensor and one threshold per pristine tensor");
  require(saliency.empty() || saliency.size() == count,
          "one saliency per pristine tensor, or none");
  std::vector<MaskedTensor> tensors(count);
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < count; ++i) {
    const bool bf16 = is_bf16(pristine[i], "weights");
    const int64_t size = pristine[i].size();
    require(is_bf16(live[i], "live") == bf16 && live[i].size() == size && live[i].writeable(),
            "live must be writable and like pristine");
    require(saliency.empty() || saliency[i].size() == size, "saliency must be like pristine");
    tensors[i] = {pristine[i].data(),
                  live[i].mutable_data(),
                  saliency.empty() ? nullptr : saliency[i].data(),
                  bf16,
                  seed.has_value(),
                  static_cast<uint64_t>(seed.value_or(0)),
                  static_cast<uint32_t>(i),
                  static_cast<float>(thresholds[i]),
                  size};
    for (int64_t from = 0; from < size; from += kChunk)
      chunks.push_back({&tensors[i], from, std::min(size, from + kChunk)});
  }
  const Isa isa = active_isa();
  py::gil_scoped_release unlocked;
  parallel_for(static_cast<int64_t>(chunks.size()), threads, 0,
               [&](int64_t task, float*) { apply(isa, chunks[static_cast<size_t>(task)]); });
}

}  // namespace

void bind_thresholds(py::module_& module) {
  module.def("apply_thresholds", &apply_thresholds, py::arg("pristine"), py::arg("live"),
             py::arg("thresholds"), py::arg("saliency"), py::arg("seed"), py::arg("threads"),
             "Writes one sub-model's weights to live; see ops.apply_thresholds.");
}

}  // namespace lc
