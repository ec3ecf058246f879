// A language model's head and the softmax at the target: hidden states in, parts of the softmax
// out. The caller joins the parts of the vocabulary's segments.
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

// Vocabulary entries of a segment; fixed, so that no row's result depends on the batch or the
// threads.
constexpr int64_t kSegment = 4096;

struct TokenJob {
  MaskedWeight weight;
  LayerInputs hidden;
  const float* bias;       // [vocabulary entry] or null
  const int64_t* targets;  // [row]
  bool entropy;            // whether moments are computed
  SoftmaxPart* parts;      // [segment][sub-model][row]
};

// Does one task with no allocation; the scratch is layer_scratch floats, 64-byte aligned.
LC_DECLARE(void token_nll(const TokenJob& job, const LayerTask& task, float* scratch))

}  // namespace lc
