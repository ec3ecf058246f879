// masked_linear: tasks of (sub-model, rows, outputs) over threads.
#include <string>

#include "bindings/masked_layers.h"
#include "common/parallel.h"
#include "masked_linear/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

void compute(Isa isa, const MaskedLinearJob& job, const LayerTask& task, float* scratch) {
  LC_DISPATCH(isa, masked_linear, job, task, scratch)
}

void run(const py::array& x, const py::array& weight, const std::optional<Array<float>>& bias,
         const Array<float>& thresholds, const std::optional<Array<float>>& saliency,
         std::optional<uint64_t> seed, const std::optional<std::string>& activation, py::array out,
         int threads) {
  require(thresholds.ndim() == 1, "thresholds must be (sub_models)");
  const int64_t sub_models = thresholds.shape(0);
  const Isa isa = active_isa();
  const MaskedWeight masked =
      checked_weight(isa, weight, "weight", thresholds, saliency, seed, sub_models);
  const LayerInputs inputs = checked_inputs(x, "x", sub_models, masked);
  check_bias(bias, masked.outputs);
  require(is_bf16(out, "out") == inputs.bf16 && out.ndim() == 3 && out.shape(0) == sub_models &&
              out.shape(1) == inputs.rows && out.shape(2) == masked.outputs && out.writeable(),
          "out must be a writable (sub_models, rows, outputs) array like x");
  const MaskedLinearJob job{masked, inputs, data_or_null(bias), activation_named(activation),
                            out.mutable_data()};
  const LayerTasks tasks(masked, inputs, kOutputs);
  if (sub_models * inputs.rows == 0) return;
  py::gil_scoped_release unlocked;
  parallel_for(tasks.count(), threads, layer_scratch(masked.dims),
               [&](int64_t task, float* scratch) { compute(isa, job, tasks[task], scratch); });
}

}  // namespace

void bind_masked_linear(py::module_& module) {
  module.def("masked_linear", &run, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("thresholds"), py::arg("saliency"), py::arg("seed"), py::arg("activation"),
             py::arg("out"), py::arg("threads"),
             "One layer of all sub-models into out; see ops.masked_linear.");
}

}  // namespace lc
