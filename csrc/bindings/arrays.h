// What the bindings share: checks of arrays before their memory is read.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/layer_activation.h"

namespace lc {

namespace py = pybind11;
template <typename T>
using Array = py::array_t<T, py::array::c_style>;

inline void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

// Returns whether an array holds bfloat16 bits; throws, naming it, unless it holds those or
// float32.
inline bool is_bf16(const py::array& array, const std::string& name) {
  const bool bf16 = py::isinstance<py::array_t<uint16_t>>(array);
  if (!bf16 && !py::isinstance<py::array_t<float>>(array))
    throw std::invalid_argument(name + " must be float32, or bfloat16 bits as uint16");
  if ((array.flags() & py::array::c_style) == 0)
    throw std::invalid_argument(name + " must be contiguous");
  return bf16;
}

// Features, float32 or bfloat16 bits as uint16: (..., samples, dims).
struct Features {
  const void* data;
  bool bf16;
  int64_t leading, samples, dims;

  explicit Features(const py::array& array, const std::string& name = "features") {
    bf16 = is_bf16(array, name);
    if (array.ndim() != 2 && array.ndim() != 3)
      throw std::invalid_argument(name + " must have 2 or 3 dimensions");
    leading = array.ndim() == 3 ? array.shape(0) : 1;
    samples = array.shape(array.ndim() - 2);
    dims = array.shape(array.ndim() - 1);
    data = array.data();
  }
};

inline Activation activation_named(const std::optional<std::string>& name) {
  if (!name) return Activation::none;
  if (*name == "relu") return Activation::relu;
  if (*name == "relu6") return Activation::relu6;
  require(*name == "gelu", "activation must be None, relu, relu6 or gelu");
  return Activation::gelu;
}

template <typename T>
const T* data_or_null(const std::optional<Array<T>>& array) {
  return array.has_value() ? array->data() : nullptr;
}

inline void check_bias(const std::optional<Array<float>>& bias, int64_t outputs) {
  require(!bias || (bias->ndim() == 1 && bias->shape(0) == outputs), "bias must be (outputs)");
}

// A bias filled up with zeros to `padded` outputs, or zeros alone.
inline std::vector<float> padded_bias(const std::optional<Array<float>>& bias, int64_t outputs,
                                      int64_t padded) {
  check_bias(bias, outputs);
  std::vector<float> filled(static_cast<size_t>(padded), 0.f);
  if (bias) std::copy_n(bias->data(), outputs, filled.begin());
  return filled;
}

// Labels in [0, classes) and a writable (sub_models, samples) result: checked here too, as they
// decide which memory is accessed.
inline void check_batch(const std::optional<Array<int64_t>>& labels, const Array<float>& log_probs,
                        int64_t sub_models, int64_t samples, int64_t classes) {
  require(log_probs.ndim() == 2 && log_probs.shape(0) == sub_models &&
              log_probs.shape(1) == samples && log_probs.writeable(),
          "log_probs must be a writable (sub_models, samples) array");
  if (!labels.has_value()) return;
  require(labels->ndim() == 1 && labels->shape(0) == samples, "labels must be (samples)");
  const int64_t* values = labels->data();
  for (int64_t i = 0; i < samples; ++i)
    require(values[i] >= 0 && values[i] < classes, "labels must lie in [0, classes)");
}

void bind_attention(py::module_& module);
void bind_depthwise(py::module_& module);
void bind_gated_silu(py::module_& module);
void bind_int8_convolution(py::module_& module);
void bind_int8_linear(py::module_& module);
void bind_linear(py::module_& module);
void bind_logits(py::module_& module);
void bind_masked_linear(py::module_& module);
void bind_max_pool(py::module_& module);
void bind_mlp(py::module_& module);
void bind_prototype(py::module_& module);
void bind_rms_norm(py::module_& module);
void bind_sparse_layer(py::module_& module);
void bind_thresholds(py::module_& module);
void bind_token_nll(py::module_& module);
void bind_transformer_block(py::module_& module);
void bind_winograd(py::module_& module);

}  // namespace lc
