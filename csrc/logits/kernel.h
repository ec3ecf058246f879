// The softmax of logits that torch multiplied, tile by tile: rows of bfloat16 into running sums.
#pragma once
#include <cstdint>

#include "simd/declare.h"

namespace lc {

struct LogitsJob {
  const uint16_t* logits;  // (rows, classes) bfloat16
  const uint16_t* lost;    // what the rounding to bfloat16 lost of them, rounded too, or null
  const float* bias;       // (classes) or null
  const int64_t* labels;   // (rows), of all classes, or null
  int64_t classes;         // of the tile, the first of which is `first`
  int64_t first;
  // (rows), of the classes so far and in base 2: the largest logit, Σ 2^d with d the distance from
  // it, Σ 2^d · d (or null), and the label's logit.
  float *largest, *total, *moment, *chosen;
};

// Takes the rows [from, to) in.
LC_DECLARE(void take_logits(const LogitsJob& job, int64_t from, int64_t to))

}  // namespace lc
