// MLPPlan: an MLP head prepared once, then any number of batches.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "common/parallel.h"
#include "mlp_confidence/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

// Density below which lists of weights beat the masked dense product on Zen 4. Lists load a hidden
// unit per weight and vector of samples: they gain where hidden units fit the first-level cache.
double sparse_below(int64_t inputs, int lanes) {
  if (lanes < 16) return 0.3;
  return inputs * lanes * 4 <= 32 * 1024 ? 0.55 : 0.42;
}
constexpr int64_t kMaxInputs = 65536;  // what a SparseQuad can index

void score(Isa isa, const MLPJob& job, int64_t row, float* scratch) {
  LC_DISPATCH(isa, mlp_confidence, job, row, scratch)
}

// A MaskedLayer and the memory behind it. Thresholds ascend, as Python has them.
class LayerStore {
 public:
  LayerStore(const LayerStore&) = delete;  // the view points into the vectors
  LayerStore(const float* weight, const float* bias, const float* saliency, const float* thresholds,
             int64_t outputs, int64_t inputs, int64_t sub_models, int lanes)
      : thresholds_(thresholds, thresholds + sub_models) {
    std::reverse(thresholds_.begin(), thresholds_.end());
    bias_.resize(static_cast<size_t>(outputs), 0.f);
    if (bias != nullptr) std::copy_n(bias, outputs, bias_.begin());
    // The kernel reads whole vectors, past the end of the last group.
    const size_t packed = static_cast<size_t>(packed_size(outputs, inputs)) + 16;
    weight_.resize(packed, 0.f);
    if (saliency != nullptr) saliency_.resize(packed, 0.f);
    for (int64_t c = 0; c < outputs; ++c)
      for (int64_t d = 0; d < inputs; ++d) {
        const size_t at = static_cast<size_t>(packed_index(c, d, inputs));
        weight_[at] = weight[c * inputs + d];
        if (saliency != nullptr) saliency_[at] = saliency[c * inputs + d];
      }
    const int64_t sparse = inputs > kMaxInputs ? 0
                                               : list_weights(weight, saliency, outputs, inputs,
                                                              sparse_below(inputs, lanes));
    view_ = {inputs,
             outputs,
             weight_.data(),
             saliency == nullptr ? nullptr : saliency_.data(),
             thresholds_.data(),
             bias_.data(),
             sparse,
             quads_.data(),
             first_.data(),
             count_.data()};
  }
  const MaskedLayer& view() const { return view_; }

 private:
  // Fills the lists for the sub-models that are sparse enough; returns how many.
  int64_t list_weights(const float* weight, const float* saliency, int64_t outputs, int64_t inputs,
                       double densest) {
    const int64_t sub_models = static_cast<int64_t>(thresholds_.size());
    const auto shell_of = [&](int64_t i) {  // the sparsest sub-model that keeps weight i
      const float s = saliency == nullptr ? std::fabs(weight[i]) : saliency[i];
      if (std::isnan(s)) return sub_models;
      return static_cast<int64_t>(
          std::lower_bound(thresholds_.begin(), thresholds_.end(), s, std::greater<float>()) -
          thresholds_.begin());
    };
    std::vector<int32_t> shell(static_cast<size_t>(outputs * inputs));
    std::vector<int64_t> kept(static_cast<size_t>(sub_models) + 1, 0);
    for (int64_t i = 0; i < outputs * inputs; ++i) {
      shell[i] = static_cast<int32_t>(shell_of(i));
      ++kept[shell[i]];
    }
    int64_t sparse = 0, total = 0;
    while (sparse < sub_models) {
      total += kept[sparse];
      if (static_cast<double>(total) > densest * static_cast<double>(outputs * inputs)) break;
      ++sparse;
    }
    count_.resize(static_cast<size_t>(sparse * outputs), 0);
    std::vector<std::vector<int32_t>> shells(static_cast<size_t>(sparse));
    for (int64_t c = 0; c < outputs && sparse > 0; ++c) {
      for (auto& one : shells) one.clear();
      for (int64_t d = 0; d < inputs; ++d)
        if (shell[c * inputs + d] < sparse)
          shells[shell[c * inputs + d]].push_back(static_cast<int32_t>(d));
      first_.push_back(static_cast<int64_t>(quads_.size()));
      int64_t next = 0;
      for (int64_t j = 0; j < sparse; ++j) {
        for (const int32_t d : shells[j]) {
          if (next % 4 == 0) quads_.push_back(SparseQuad{});
          quads_.back().weight[next % 4] = weight[c * inputs + d];
          quads_.back().input[next % 4] = static_cast<uint16_t>(d);
          ++next;
        }
        count_[j * outputs + c] = static_cast<int32_t>(next);
      }
    }
    return sparse;
  }

  std::vector<float> thresholds_, bias_, weight_, saliency_;
  std::vector<SparseQuad> quads_;
  std::vector<int64_t> first_;
  std::vector<int32_t> count_;
  MaskedLayer view_;
};

class MLPPlan {
 public:
  MLPPlan(const std::vector<Array<float>>& weights,
          const std::vector<std::optional<Array<float>>>& biases,
          const std::optional<std::vector<Array<float>>>& saliency, const Array<float>& thresholds,
          const std::string& activation)
      : isa_(active_isa()),
        lanes_(isa_lanes(isa_)),
        activation_(activation == "relu" ? Activation::relu : Activation::gelu) {
    require(activation == "relu" || activation == "gelu", "activation must be relu or gelu");
    const int64_t count = static_cast<int64_t>(weights.size());
    require(count > 0 && thresholds.ndim() == 2 && thresholds.shape(0) == count &&
                thresholds.shape(1) > 0,
            "thresholds must be (layers, sub_models)");
    require(biases.size() == weights.size(), "one bias per weight");
    require(!saliency || saliency->size() == weights.size(), "one saliency per weight, or none");
    sub_models_ = thresholds.shape(1);
    for (int64_t l = 0; l < count; ++l) {
      const Array<float>& w = weights[l];
      require(w.ndim() == 2 && w.shape(0) > 0, "weights must be (outputs, inputs)");
      require(l == 0 || w.shape(1) == weights[l - 1].shape(0), "weights must fit one another");
      require(!biases[l] || biases[l]->size() == w.shape(0), "biases must be (outputs)");
      require(!saliency || (*saliency)[l].size() == w.size(), "saliency must be like weights");
    }
    dims_ = weights.front().shape(1);
    classes_ = weights.back().shape(0);
    py::gil_scoped_release unlocked;
    for (int64_t l = 0; l < count; ++l) {
      const float* scores = saliency ? (*saliency)[l].data() : nullptr;
      const float* bounds = thresholds.data() + l * sub_models_;
      const int64_t outputs = weights[l].shape(0), inputs = weights[l].shape(1);
      if (l == 0) {
        shells_ =
            std::make_unique<ShellStore>(Form::wide, weights[l].data(), data_or_null(biases[l]),
                                         scores, bounds, outputs, inputs, sub_models_, lanes_, 1.f);
      } else {
        if (l + 1 < count) widest_ = std::max(widest_, outputs);
        stores_.push_back(std::make_unique<LayerStore>(weights[l].data(), data_or_null(biases[l]),
                                                       scores, bounds, outputs, inputs, sub_models_,
                                                       lanes_));
        layers_.push_back(stores_.back()->view());
      }
    }
  }

  void run(const py::array& features, const std::optional<Array<int64_t>>& labels,
           Array<float> log_probs, int threads) const {
    const Features x(features);
    require(x.leading == 1 && x.dims == dims_, "features must be (samples, dims)");
    check_batch(labels, log_probs, sub_models_, x.samples, classes_);
    const MLPJob job{&shells_->view(),
                     layers_.data(),
                     static_cast<int64_t>(layers_.size()),
                     widest_,
                     activation_,
                     x.data,
                     x.bf16,
                     x.samples,
                     data_or_null(labels),
                     log_probs.mutable_data()};
    py::gil_scoped_release unlocked;
    parallel_for((x.samples + kRows - 1) / kRows, threads, mlp_scratch(job, lanes_),
                 [&](int64_t task, float* scratch) { score(isa_, job, task * kRows, scratch); });
  }

 private:
  Isa isa_;
  int lanes_;
  Activation activation_;
  int64_t dims_, classes_, sub_models_, widest_ = 0;
  std::unique_ptr<ShellStore> shells_;
  std::vector<std::unique_ptr<LayerStore>> stores_;
  std::vector<MaskedLayer> layers_;
};

}  // namespace

int64_t mlp_scratch(const MLPJob& job, int lanes) {
  const Shells& s = *job.shells;
  int64_t inputs = 0;
  for (int64_t l = 0; l < job.layer_count; ++l) inputs = std::max(inputs, job.layers[l].inputs);
  const int64_t partial = s.blocks > 1 ? s.outputs_per_group * s.sub_models + 1 : 0;
  return kRows * (s.dims + s.sub_models * s.outputs + 2 * job.widest + kBlock) +
         (s.sub_models + 1 + partial) * lanes + kBlock * inputs + lanes;
}

void bind_mlp(py::module_& module) {
  py::class_<MLPPlan>(module, "MLPPlan", "A masked MLP head, prepared; see ops.MLPPlan.")
      .def(py::init<const std::vector<Array<float>>&,
                    const std::vector<std::optional<Array<float>>>&,
                    const std::optional<std::vector<Array<float>>>&, const Array<float>&,
                    const std::string&>(),
           py::arg("weights"), py::arg("biases"), py::arg("saliency"), py::arg("thresholds"),
           py::arg("activation"))
      .def("run", &MLPPlan::run, py::arg("features"), py::arg("labels"),
           py::arg("log_probs").noconvert(), py::arg("threads"));
}

}  // namespace lc
