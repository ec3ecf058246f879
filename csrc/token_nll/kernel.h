// A language model's head and the softmax at the target: hidden states in, parts of the softmax
// out. Parts of several segments of the vocabulary are joined by the caller.
#pragma once
#include <cstdint>

#include "common/masked_weight.h"
#include "simd/declare.h"

namespace lc {

// The softmax of one row over a segment, in base 2: the largest logit, Σ 2^(l − largest), the same
// times (l − largest), and the target's logit if the target lies in the segment.
struct SoftmaxPart {
  float largest, total, moment, chosen;
};

// Words of a segment; fixed, so that no row's result depends on the batch or on the threads.
constexpr int64_t kSegment = 4096;

struct TokenJob {
  MaskedWeight weight;
  LayerInputs hidden;
  const float* bias;       // [word] or null
  const int64_t* targets;  // [row]
  bool entropy;            // whether moments are wanted
  SoftmaxPart* parts;      // [segment][sub-model][row]
};

// Does one task with no allocation; the scratch is layer_scratch floats, 64-byte aligned.
LC_DECLARE(void token_nll(const TokenJob& job, const LayerTask& task, float* scratch))

}  // namespace lc
