// Int8LinearPlan: a linear layer's weights rounded to 8 bits, then any number of rows.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "int8_linear.h"
#include "parallel.h"

namespace lc {
namespace {

void round_weights(const Int8Layer& layer, const void* weight, bool bits16, int64_t block,
                   uint8_t* out, float* steps, float* scratch) {
  LC_DISPATCH(int8_weights, layer, weight, bits16, block, out, steps, scratch)
}

void compute(const Int8Job& job, int64_t first, int64_t rows, float* scratch) {
  LC_DISPATCH(int8_rows, job, first, rows, scratch)
}

// What an Int8Layer points to.
struct Held {
  AlignedFloats weights;
  std::vector<float> steps, bias;
};

class Int8LinearPlan {
 public:
  // A weight is (outputs, inputs), with the outputs of the one before as inputs.
  Int8LinearPlan(const std::vector<py::array>& weights,
                 const std::vector<std::optional<Array<float>>>& biases,
                 const std::vector<std::optional<std::string>>& activations, int threads) {
    require(
        !weights.empty() && biases.size() == weights.size() && activations.size() == weights.size(),
        "weights, biases and activations must be one each for every layer");
    bits16_ = is_bits16(weights[0], "weight");
    for (size_t i = 0; i < weights.size(); ++i) {
      const py::array& weight = weights[i];
      require(is_bits16(weight, "weight") == bits16_, "weights must have one dtype");
      require(weight.ndim() == 2 && weight.shape(1) > 0 && weight.shape(1) <= kMostInt8Inputs,
              "weight must be (outputs, inputs), with 1 to 65536 inputs");
      require(i == 0 || weight.shape(1) == layers_.back().outputs,
              "weight must have the outputs of the layer before as inputs");
      require(!biases[i] || (biases[i]->ndim() == 1 && biases[i]->shape(0) == weight.shape(0)),
              "bias must be (outputs)");
      const Activation activation = activation_named(activations[i]);
      add({weight.shape(0), weight.shape(1), activation, isa_lanes(active_isa()), nullptr, nullptr,
           nullptr},
          weight.data(), biases[i] ? biases[i]->data() : nullptr, threads);
    }
  }

  // x is (rows, inputs), out (rows, outputs).
  void run(const py::array& x, py::array out, int threads) const {
    const int64_t inputs = layers_.front().inputs, outputs = layers_.back().outputs;
    require(x.ndim() == 2 && x.shape(1) == inputs, "x must be (rows, inputs)");
    require(is_bits16(x, "x") == bits16_, "x must have the dtype of the weights");
    require(is_bits16(out, "out") == bits16_ && out.ndim() == 2 && out.writeable() &&
                out.shape(0) == x.shape(0) && out.shape(1) == outputs,
            "out must be a writable (rows, outputs) array like x");
    const auto count = static_cast<int64_t>(layers_.size());
    const Int8Job job{layers_.data(),        count,    bits16_,
                      isa_multiplies_int8(), x.data(), out.mutable_data()};
    const int64_t rows = x.shape(0);
    py::gil_scoped_release unlocked;
    parallel_for((rows + kInt8Rows - 1) / kInt8Rows, threads, int8_scratch(layers_.data(), count),
                 [&](int64_t task, float* scratch) {
                   const int64_t first = task * kInt8Rows;
                   compute(job, first, std::min(kInt8Rows, rows - first), scratch);
                 },
                 Memory::as_it_is);
  }

 private:
  void add(Int8Layer layer, const void* weight, const float* bias, int threads) {
    const auto padded = static_cast<size_t>(layer.blocks() * 2 * layer.lanes);
    Held held{AlignedFloats(layer.blocks() * layer.block_bytes() / 4, Memory::as_it_is),
              std::vector<float>(padded, 0.f), std::vector<float>(padded, 0.f)};
    if (bias != nullptr) std::copy_n(bias, layer.outputs, held.bias.begin());
    auto* out = reinterpret_cast<uint8_t*>(held.weights.data.get());
    float* steps = held.steps.data();
    {
      py::gil_scoped_release unlocked;
      parallel_for(
          layer.blocks(), threads, layer.row_bytes() / 4,
          [&](int64_t block, float* scratch) {
            round_weights(layer, weight, bits16_, block, out + block * layer.block_bytes(),
                          steps + block * 2 * layer.lanes, scratch);
          },
          Memory::as_it_is);
    }
    layer.weights = out;
    layer.steps = steps;
    layer.bias = held.bias.data();
    held_.push_back(std::move(held));
    layers_.push_back(layer);
  }

  std::vector<Held> held_;
  std::vector<Int8Layer> layers_;
  bool bits16_ = false;
};

}  // namespace

void bind_int8_linear(py::module_& module) {
  module.def("multiplies_int8", isa_multiplies_int8,
             "Whether the instruction set in use multiplies four pairs of 8 bits at a time.");
  py::class_<Int8LinearPlan>(module, "Int8LinearPlan",
                             "Weights of linear layers in 8 bits; see ops.Int8LinearPlan.")
      .def(py::init<const std::vector<py::array>&, const std::vector<std::optional<Array<float>>>&,
                    const std::vector<std::optional<std::string>>&, int>(),
           py::arg("weights"), py::arg("biases"), py::arg("activations"), py::arg("threads"))
      .def("run", &Int8LinearPlan::run, py::arg("x"), py::arg("out").noconvert(),
           py::arg("threads"));
}

}  // namespace lc
