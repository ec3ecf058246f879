// All K sub-models of a masked linear head: features in, log p of the label out.
#pragma once
#include <cstdint>

#include "common/shells.h"
#include "simd/declare.h"

namespace lc {

struct LinearJob {
  const Shells* parts;  // one with all K sub-models (nested), or K with one each
  int64_t part_count;
  int64_t sub_models;
  const void* features;  // (samples, dims) float32, or bfloat16 where bf16
  bool bf16;
  int64_t samples;
  const int64_t* labels;  // (samples) or null: the largest probability
  float* log_probs;       // (sub_models, samples)
};

// Tiles of one call of the kernel, and the floats of scratch for them, 64-byte aligned.
int64_t linear_tiles_per_call(const LinearJob& job, int lanes, int threads);
int64_t linear_scratch(const LinearJob& job, int lanes, int64_t tiles);

// Scores samples [row, row + tiles · tile_samples) with no allocation.
LC_DECLARE(void linear_confidence(const LinearJob& job, int64_t row, int64_t tiles, float* scratch))

}  // namespace lc
