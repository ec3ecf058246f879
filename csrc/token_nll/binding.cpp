// token_nll: tasks of (sub-model, rows, vocabulary) over threads, then the parts of each row
// joined.
#include <algorithm>
#include <cmath>
#include <vector>

#include "bindings/masked_layers.h"
#include "common/parallel.h"
#include "simd/isa.h"
#include "token_nll/kernel.h"

namespace lc {
namespace {

constexpr double kLn2 = 0.69314718055994531;

void score(Isa isa, const TokenJob& job, const LayerTask& task, float* scratch) {
  LC_DISPATCH(isa, token_nll, job, task, scratch)
}

// Joins the parts of one row, always in the same order.
void join(const SoftmaxPart* parts, int64_t segments, int64_t stride, int64_t home, float* nll,
          float* entropy) {
  double largest = parts[0].largest, total = 0, moment = 0;
  for (int64_t s = 1; s < segments; ++s)
    largest = std::max<double>(largest, parts[s * stride].largest);
  for (int64_t s = 0; s < segments; ++s) {
    const SoftmaxPart& part = parts[s * stride];
    const double change = part.largest - largest, scale = std::exp2(change);
    total += scale * part.total;
    // The change of a segment without probability may be −10^38: skip 0 · that.
    if (scale > 0) moment += scale * (part.moment + change * part.total);
  }
  const double log_total = std::log2(total);
  *nll = static_cast<float>((log_total - (parts[home * stride].chosen - largest)) * kLn2);
  if (entropy != nullptr) *entropy = static_cast<float>((log_total - moment / total) * kLn2);
}

void run(const py::array& hidden, const py::array& vocab_weight,
         const std::optional<Array<float>>& bias, const Array<int64_t>& targets,
         const std::optional<Array<float>>& thresholds, const std::optional<Array<float>>& saliency,
         std::optional<uint64_t> seed, Array<float> nll, std::optional<Array<float>> entropy,
         int threads) {
  require(nll.ndim() == 2 && nll.writeable(), "nll must be a writable (sub_models, tokens) array");
  const int64_t sub_models = nll.shape(0), tokens = nll.shape(1);
  const Isa isa = active_isa();
  const MaskedWeight weight =
      checked_weight(isa, vocab_weight, "vocab_weight", thresholds, saliency, seed, sub_models);
  const LayerInputs inputs = checked_inputs(hidden, "hidden", sub_models, weight);
  require(inputs.rows == tokens, "hidden must have a row for each token of nll");
  check_bias(bias, weight.outputs);
  require(!entropy || (entropy->ndim() == 2 && entropy->shape(0) == sub_models &&
                       entropy->shape(1) == tokens && entropy->writeable()),
          "entropy must be a writable (sub_models, tokens) array");
  require(targets.ndim() == 1 && targets.shape(0) == tokens, "targets must be (tokens)");
  for (int64_t i = 0; i < tokens; ++i)
    require(targets.data()[i] >= 0 && targets.data()[i] < weight.outputs,
            "targets must lie in [0, vocabulary)");
  float* out = nll.mutable_data();
  float* undecided = entropy ? entropy->mutable_data() : nullptr;
  const int64_t rows = sub_models * tokens, segments = (weight.outputs + kSegment - 1) / kSegment;
  if (rows == 0) return;
  py::gil_scoped_release unlocked;
  std::vector<SoftmaxPart> parts(static_cast<size_t>(rows * segments));
  const TokenJob job{weight,      inputs, data_or_null(bias), targets.data(), entropy.has_value(),
                     parts.data()};
  const LayerTasks tasks(weight, inputs, kSegment);
  parallel_for(tasks.count(), threads, layer_scratch(weight.dims),
               [&](int64_t task, float* scratch) { score(isa, job, tasks[task], scratch); });
  for (int64_t row = 0; row < rows; ++row)
    join(parts.data() + row, segments, rows, job.targets[row % tokens] / kSegment, out + row,
         undecided == nullptr ? nullptr : undecided + row);
}

}  // namespace

void bind_token_nll(py::module_& module) {
  module.def("token_nll", &run, py::arg("hidden"), py::arg("vocab_weight"), py::arg("bias"),
             py::arg("targets"), py::arg("thresholds"), py::arg("saliency"), py::arg("seed"),
             py::arg("nll").noconvert(), py::arg("entropy").noconvert(), py::arg("threads"),
             "NLL and entropy of every token into nll and entropy; see ops.token_nll.");
}

}  // namespace lc
