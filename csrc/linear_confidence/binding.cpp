// LinearPlan: a head sorted into shells once, then any number of batches.
#include <algorithm>
#include <memory>

#include "bindings/arrays.h"
#include "common/parallel.h"
#include "common/shells.h"
#include "linear_confidence/kernel.h"
#include "simd/isa.h"
#include "simd/log2e.h"

namespace lc {
namespace {

// Tiles in the second-level cache, where all quads fit it too, and where each call fetches them
// again, which more tiles share.
constexpr int64_t kTileBytes = 512 * 1024, kSharedTileBytes = 768 * 1024;
constexpr int64_t kMaxTiles = 8, kMaxSharedTiles = 16;

void score(Isa isa, const LinearJob& job, int64_t row, int64_t tiles, float* scratch) {
  LC_DISPATCH(isa, linear_confidence, job, row, tiles, scratch)
}

class LinearPlan {
 public:
  LinearPlan(const Array<float>& weight, const std::optional<Array<float>>& bias,
             const std::optional<Array<float>>& saliency, const Array<float>& thresholds,
             bool bfloat16)
      : isa_(active_isa()),
        lanes_(isa_lanes(isa_)),
        form_(bfloat16 && isa_multiplies_bfloat16(isa_) ? Form::pairs : Form::wide) {
    require(weight.ndim() == 2, "weight must be (classes, dims)");
    classes_ = weight.shape(0);
    dims_ = weight.shape(1);
    sub_models_ = thresholds.size();
    require(classes_ > 0 && sub_models_ > 0, "weight and thresholds must not be empty");
    require(!bias || bias->size() == classes_, "bias must be (classes)");
    const bool nested = !saliency || saliency->ndim() == 2;
    require(!saliency || saliency->size() == (nested ? 1 : sub_models_) * weight.size(),
            "saliency must be like weight, or one such per sub-model");
    const float* scores = data_or_null(saliency);
    const int64_t parts = nested ? 1 : sub_models_;
    py::gil_scoped_release unlocked;
    for (int64_t p = 0; p < parts; ++p) {
      stores_.push_back(std::make_unique<ShellStore>(
          form_, weight.data(), data_or_null(bias),
          scores == nullptr ? nullptr : scores + p * classes_ * dims_, thresholds.data() + p,
          classes_, dims_, nested ? sub_models_ : 1, lanes_, form_ == Form::pairs ? 1.f : kLog2E));
      parts_.push_back(stores_.back()->view());
    }
  }

  void run(const py::array& features, const std::optional<Array<int64_t>>& labels,
           Array<float> log_probs, int threads) const {
    const Features x(features);
    require(x.leading == 1 && x.dims == dims_, "features must be (samples, dims)");
    require(x.bf16 || form_ == Form::wide, "features must be bfloat16, as the plan's weights");
    check_batch(labels, log_probs, sub_models_, x.samples, classes_);
    const LinearJob job{parts_.data(),
                        static_cast<int64_t>(parts_.size()),
                        sub_models_,
                        x.data,
                        x.bf16,
                        x.samples,
                        data_or_null(labels),
                        log_probs.mutable_data()};
    py::gil_scoped_release unlocked;
    const int64_t tiles = linear_tiles_per_call(job, lanes_, threads);
    const int samples = tile_samples(form_, lanes_);
    const int64_t rows = tiles * samples;
    parallel_for((job.samples + rows - 1) / rows, threads, linear_scratch(job, lanes_, tiles),
                 [&](int64_t task, float* scratch) {
                   const int64_t row = task * rows;
                   const int64_t left = (job.samples - row + samples - 1) / samples;
                   score(isa_, job, row, std::min(tiles, left), scratch);
                 });
  }

 private:
  Isa isa_;
  int lanes_;
  Form form_;
  int64_t classes_, dims_, sub_models_;
  std::vector<std::unique_ptr<ShellStore>> stores_;
  std::vector<Shells> parts_;
};

}  // namespace

int64_t linear_tiles_per_call(const LinearJob& job, int lanes, int threads) {
  const Form form = job.parts[0].form;
  const int64_t samples = tile_samples(form, lanes);
  const int64_t tile_bytes =
      std::max<int64_t>(1, job.parts[0].dims) * tile_bytes_per_dim(form, lanes);
  const bool shared = job.parts[0].outputs > job.parts[0].outputs_per_group;
  const int64_t fit = std::clamp<int64_t>((shared ? kSharedTileBytes : kTileBytes) / tile_bytes, 1,
                                          shared ? kMaxSharedTiles : kMaxTiles);
  // A small batch is spread over the threads rather than over the cache.
  const int64_t tiles = (job.samples + samples - 1) / samples;
  return std::clamp<int64_t>((tiles + threads - 1) / std::max(1, threads), 1, fit);
}

int64_t linear_scratch(const LinearJob& job, int lanes, int64_t tiles) {
  int64_t most = 0;
  for (int64_t p = 0; p < job.part_count; ++p) {
    const Shells& s = job.parts[p];
    const int64_t samples = tile_samples(s.form, lanes), width = s.sub_models * samples;
    const int64_t partial = s.blocks > 1 ? s.outputs_per_group * width : 0;
    most = std::max(most, 3 * tiles * width + width + samples + partial + samples);
  }
  return tiles * job.parts[0].dims * lanes + most;
}

void bind_linear(py::module_& module) {
  py::class_<LinearPlan>(module, "LinearPlan",
                         "A masked linear head, prepared; see ops.LinearPlan.")
      .def(py::init<const Array<float>&, const std::optional<Array<float>>&,
                    const std::optional<Array<float>>&, const Array<float>&, bool>(),
           py::arg("weight"), py::arg("bias"), py::arg("saliency"), py::arg("thresholds"),
           py::arg("bfloat16"))
      .def("run", &LinearPlan::run, py::arg("features"), py::arg("labels"),
           py::arg("log_probs").noconvert(), py::arg("threads"));
}

}  // namespace lc
