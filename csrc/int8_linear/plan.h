// Int8LinearPlan: linear layers' weights quantized once, then any number of rows.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/quantized_layer.h"
#include "int8_linear/kernel.h"
#include "simd/isa.h"

namespace lc {

class Int8LinearPlan {
 public:
  // A weight is (outputs, inputs), with the outputs of the one before as inputs; norm_weight and
  // norm_bias are (inputs of the first), for a layer norm of the rows.
  Int8LinearPlan(const std::vector<py::array>& weights,
                 const std::vector<std::optional<Array<float>>>& biases,
                 const std::vector<std::optional<std::string>>& activations,
                 const std::optional<Array<float>>& norm_weight,
                 const std::optional<Array<float>>& norm_bias, float epsilon, int threads);

  int64_t inputs() const { return layers_.front().inputs; }
  int64_t outputs() const { return layers_.back().outputs; }
  bool bf16() const { return bf16_; }

  // The job from (rows, inputs) to (rows, outputs), to which `added` is added; see Int8Job.
  Int8Job job(const void* x, void* out, const void* added) const {
    return {layers_.data(),
            static_cast<int64_t>(layers_.size()),
            bf16_,
            isa_multiplies_int8(isa_),
            norm_ ? &*norm_ : nullptr,
            x,
            out,
            added};
  }

  // Computes rows [first, first + rows) of a job, at most kInt8Rows.
  void compute(const Int8Job& job, int64_t first, int64_t rows, float* scratch) const;

  // x is (rows, inputs), out (rows, outputs).
  void run(const py::array& x, py::array out, int threads) const;

 private:
  Isa isa_ = active_isa();
  std::vector<QuantizedLayer> held_;
  std::vector<Int8Layer> layers_;
  std::vector<float> norm_weight_, norm_bias_;
  std::optional<RowNorm> norm_;
  bool bf16_ = false;
};

}  // namespace lc
