// All K sub-models of a masked MLP head: features in, log p of the label out.
//
// All sub-models share the first layer's input, so its units come from shells, all K at once. Later
// layers have an input per sub-model: a product with a prefix of weight lists sorted by shell, or a
// dense product with the masked weights, whichever is faster at that sub-model's density.
#pragma once
#include <cstdint>

#include "common/layer_activation.h"
#include "common/shells.h"
#include "common/tile_sizes.h"
#include "simd/declare.h"

namespace lc {

// Four weights of one output and the indices of their inputs.
struct SparseQuad {
  float weight[4];
  uint16_t input[4];
};

// A layer after the first. Sub-models are counted as shells are: 0 is the sparsest.
struct MaskedLayer {
  int64_t inputs, outputs;
  const float* weight;      // packed (common/tile_sizes.h)
  const float* saliency;    // packed, or null: |w|
  const float* thresholds;  // [sub-model], descending
  const float* bias;        // [output]
  // Sub-models [0, sparse) take the first count[sub-model][output] weights of an output's list,
  // which starts at quad first[output]; the others the masked dense product.
  int64_t sparse;
  const SparseQuad* quads;
  const int64_t* first;
  const int32_t* count;
};

struct MLPJob {
  const Shells* shells;  // the first layer
  const MaskedLayer* layers;
  int64_t layer_count;
  int64_t widest;  // outputs of a hidden layer after the first, at most
  Activation activation;
  const void* features;  // (samples, dims) float32, or bfloat16 where bf16
  bool bf16;
  int64_t samples;
  const int64_t* labels;  // (samples) or null: the largest probability
  float* log_probs;       // (sub_models, samples)
};

// Floats of scratch, 64-byte aligned, for one call.
int64_t mlp_scratch(const MLPJob& job, int lanes);

// Scores samples [row, row + kRows) with no allocation.
LC_DECLARE(void mlp_confidence(const MLPJob& job, int64_t row, float* scratch))

}  // namespace lc
