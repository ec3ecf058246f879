#include <algorithm>
#include <memory>
#include <utility>

#include "int8_linear/plan.h"

namespace lc {

Int8LinearPlan::Int8LinearPlan(const std::vector<py::array>& weights,
                               const std::vector<std::optional<Array<float>>>& biases,
                               const std::vector<std::optional<std::string>>& activations,
                               const std::optional<Array<float>>& norm_weight,
                               const std::optional<Array<float>>& norm_bias, float epsilon,
                               int threads) {
  require(
      !weights.empty() && biases.size() == weights.size() && activations.size() == weights.size(),
      "weights, biases and activations must be one each for every layer");
  bf16_ = is_bf16(weights[0], "weight");
  for (size_t i = 0; i < weights.size(); ++i) {
    const py::array& weight = weights[i];
    require(is_bf16(weight, "weight") == bf16_, "weights must have one dtype");
    require(weight.ndim() == 2 && weight.shape(1) > 0 && weight.shape(1) <= kMaxInt8Inputs,
            "weight must be (outputs, inputs), with 1 to 65536 inputs");
    require(i == 0 || weight.shape(1) == layers_.back().outputs,
            "weight must have the outputs of the layer before it as inputs");
    check_bias(biases[i], weight.shape(0));
    const Activation activation = activation_named(activations[i]);
    const void* given = weight.data();
    const float* bias = data_or_null(biases[i]);
    const int64_t outputs = weight.shape(0), inputs = weight.shape(1);
    py::gil_scoped_release unlocked;
    held_.emplace_back(isa_, outputs, inputs, activation, given, bf16_, bias, threads);
    layers_.push_back(held_.back().layer);
  }
  require(norm_weight.has_value() == norm_bias.has_value(),
          "norm_weight and norm_bias must come together");
  if (!norm_weight) return;
  const Int8Layer& first = layers_.front();
  for (const auto& [given, held] :
       {std::pair(&*norm_weight, &norm_weight_), std::pair(&*norm_bias, &norm_bias_)}) {
    require(given->ndim() == 1 && given->shape(0) == first.inputs,
            "norm_weight and norm_bias must be (inputs)");
    held->assign(static_cast<size_t>(first.row_bytes()), 0.f);
    std::copy_n(given->data(), first.inputs, held->begin());
  }
  norm_ = RowNorm{norm_weight_.data(), norm_bias_.data(), epsilon};
}

void Int8LinearPlan::compute(const Int8Job& job, int64_t first, int64_t rows,
                             float* scratch) const {
  LC_DISPATCH(isa_, int8_rows, job, first, rows, scratch)
}

void Int8LinearPlan::run(const py::array& x, py::array out, int threads) const {
  require(x.ndim() == 2 && x.shape(1) == inputs(), "x must be (rows, inputs)");
  require(is_bf16(x, "x") == bf16_, "x must have the dtype of the weights");
  require(is_bf16(out, "out") == bf16_ && out.ndim() == 2 && out.writeable() &&
              out.shape(0) == x.shape(0) && out.shape(1) == outputs(),
          "out must be a writable (rows, outputs) array like x");
  const Int8Job work = job(x.data(), out.mutable_data(), nullptr);
  const int64_t rows = x.shape(0);
  py::gil_scoped_release unlocked;
  parallel_for((rows + kInt8Rows - 1) / kInt8Rows, threads, work.scratch(),
               [&](int64_t task, float* scratch) {
                 const int64_t first = task * kInt8Rows;
                 compute(work, first, std::min(kInt8Rows, rows - first), scratch);
               },
               Memory::uninitialized);
}

void bind_int8_linear(py::module_& module) {
  module.def(
      "multiplies_int8", [] { return isa_multiplies_int8(active_isa()); },
      "Whether new plans multiply four pairs of int8 at a time (AVX512-VNNI).");
  py::class_<Int8LinearPlan, std::shared_ptr<Int8LinearPlan>>(
      module, "Int8LinearPlan", "Quantized weights of linear layers; see ops.Int8LinearPlan.")
      .def(py::init<const std::vector<py::array>&, const std::vector<std::optional<Array<float>>>&,
                    const std::vector<std::optional<std::string>>&,
                    const std::optional<Array<float>>&, const std::optional<Array<float>>&, float,
                    int>(),
           py::arg("weights"), py::arg("biases"), py::arg("activations"), py::arg("norm_weight"),
           py::arg("norm_bias"), py::arg("epsilon"), py::arg("threads"))
      .def("run", &Int8LinearPlan::run, py::arg("x"), py::arg("out").noconvert(),
           py::arg("threads"));
}

}  // namespace lc
