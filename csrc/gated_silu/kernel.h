// gate / (1 + e^−gate) · up: the gated activation SwiGLU (Shazeer, arXiv 2002.05202, section 2).
#pragma once
#include <cstdint>

#include "simd/declare.h"

namespace lc {

struct GatedSiluJob {
  const void *gate, *up;  // float32, or bfloat16 where bf16
  void* out;              // like them
  bool bf16;
  int64_t size;
};

// Computes numbers [from, to).
LC_DECLARE(void gated_silu(const GatedSiluJob& job, int64_t from, int64_t to))

}  // namespace lc
