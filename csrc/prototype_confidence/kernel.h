// Softmax over the distances of every sub-model's features to the class prototypes: log p out.
#pragma once
#include <cstdint>

#include "common/tile_sizes.h"
#include "simd/declare.h"

namespace lc {

enum class Logit { inverse_distance, neg_sq_distance, cosine };

struct PrototypeJob {
  const float* prototypes;  // packed (common/tile_sizes.h); of length 1 for a cosine
  int64_t classes, dims;
  Logit logit;
  float scale;           // log2(e) / temperature
  const void* features;  // (rows, dims) float32, or bfloat16 where bf16
  bool bf16;
  int64_t rows;           // sub-models · samples
  const int64_t* labels;  // (samples) or null: the largest probability
  int64_t samples;
  float* log_probs;  // (rows)
};

// Floats of scratch, 64-byte aligned, for one call.
constexpr int64_t prototype_scratch(int64_t dims) { return (dims + kBlock + 1) * kRows; }

// Scores rows [row, row + kRows) with no allocation.
LC_DECLARE(void prototype_confidence(const PrototypeJob& job, int64_t row, float* scratch))

}  // namespace lc
