// Checks that the bindings of masked_linear and token_nll share.
#pragma once
#include <string>

#include "bindings/arrays.h"
#include "common/masked_weight.h"
#include "simd/isa.h"

namespace lc {

inline MaskedWeight checked_weight(Isa isa, const py::array& weight, const std::string& name,
                                   const std::optional<Array<float>>& thresholds,
                                   const std::optional<Array<float>>& saliency,
                                   std::optional<uint64_t> seed, int64_t sub_models) {
  const bool bf16 = is_bf16(weight, name);
  if (weight.ndim() != 2 || weight.shape(0) < 1)
    throw std::invalid_argument(name + " must be (outputs, inputs) with an output");
  require(!thresholds || (thresholds->ndim() == 1 && thresholds->shape(0) == sub_models),
          "thresholds must be (sub_models)");
  require(!saliency || (saliency->ndim() == 2 && saliency->shape(0) == weight.shape(0) &&
                        saliency->shape(1) == weight.shape(1)),
          "saliency must be like the weight");
  return {weight.data(),
          bf16,
          weight.shape(0),
          weight.shape(1),
          data_or_null(thresholds),
          data_or_null(saliency),
          seed.has_value(),
          seed.value_or(0),
          bf16 && weight.shape(1) % 2 == 0 && isa_multiplies_bfloat16(isa)};
}

// (sub_models, rows, dims), or (rows, dims) that all sub-models share.
inline LayerInputs checked_inputs(const py::array& inputs, const std::string& name,
                                  int64_t sub_models, const MaskedWeight& weight) {
  const Features x(inputs, name);
  const bool shared = inputs.ndim() == 2;
  if (x.dims != weight.dims || (!shared && x.leading != sub_models))
    throw std::invalid_argument(name + " must be (sub_models, rows, inputs) or (rows, inputs)");
  if (x.bf16 != weight.bf16)
    throw std::invalid_argument(name + " must have the dtype of the weight");
  return {x.data, x.bf16, sub_models, x.samples, shared ? 0 : x.samples};
}

}  // namespace lc
