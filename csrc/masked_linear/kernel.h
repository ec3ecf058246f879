// One linear layer of all K sub-models, each with its own rows.
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

// Outputs of a task: enough to make laying out its rows cheap in comparison.
constexpr int64_t kOutputs = 1024;

// Does one task with no allocation; the scratch is layer_scratch floats, 64-byte aligned.
LC_DECLARE(void masked_linear(const MaskedLinearJob& job, const LayerTask& task, float* scratch))

}  // namespace lc
