// One linear layer of all K sub-models, each with rows of its own: activated outputs.
#pragma once
#include <cstdint>

#include "common/layer_activation.h"
#include "common/masked_weight.h"
#include "simd/declare.h"

namespace lc {

struct MaskedLinearJob {
  MaskedWeight weight;
  LayerInputs x;
  const float* bias;  // [output] or null
  Activation activation;
  void* out;  // (sub-models, rows, outputs) in the dtype of x
};

// Outputs of a task: enough that laying out its rows costs little beside them.
constexpr int64_t kOutputs = 1024;

// Does one task with no allocation; the scratch is layer_scratch floats, 64-byte aligned.
LC_DECLARE(void masked_linear(const MaskedLinearJob& job, const LayerTask& task, float* scratch))

}  // namespace lc
