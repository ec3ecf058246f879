// x / √(mean x² + ε) · weight, row by row (Zhang and Sennrich, arXiv 1910.07467, section 3).
#pragma once
#include <cstdint>

#include "simd/declare.h"

namespace lc {

struct RmsNormJob {
  const void* x;        // (rows, dims) float32, or bfloat16 where bf16
  const float* weight;  // (dims)
  void* out;            // like x
  bool bf16;
  int64_t dims;
  float eps;
};

// Computes rows [from, to).
LC_DECLARE(void rms_norm(const RmsNormJob& job, int64_t from, int64_t to))

}  // namespace lc
