// One sub-model's weights from the pristine ones: a compare and a select per weight.
#pragma once
#include <cstdint>

#include "simd/declare.h"

namespace lc {

struct MaskedTensor {
  const void* pristine;   // float32, or bfloat16 where bf16
  void* live;             // like pristine; may be the same memory
  const float* saliency;  // one per weight, or null
  bool bf16;
  bool random;  // saliency drawn by Philox: number i of (seed, stream) for weight i
  uint64_t seed;
  uint32_t stream;
  float threshold;  // a weight stays where its saliency (|w| by default) is at least this
  int64_t size;
};

// Writes weights [from, to) of one tensor.
LC_DECLARE(void apply_threshold(const MaskedTensor& tensor, int64_t from, int64_t to))

}  // namespace lc
