// A layer whose weights are whole multiples, at most 127, of a step of each output.
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/layer_activation.h"
#include "simd/declare.h"

namespace lc {

// Rows that a call takes: weights that it fetches meet all of them.
constexpr int64_t kInt8Rows = 48;
// Inputs of which no sum overflows 32 bits.
constexpr int64_t kMostInt8Inputs = 65536;

struct Int8Layer {
  int64_t outputs, inputs;
  Activation activation;
  int64_t lanes;
  const int8_t* weights;  // [block][quad][output of the block][4]
  const int32_t* begin;   // [block][output]: −128 Σ w
  const float* steps;     // [block][output]
  const float* bias;      // [block][output]

  constexpr int64_t quads() const { return (inputs + 3) / 4; }
  constexpr int64_t blocks() const { return (outputs + 2 * lanes - 1) / (2 * lanes); }
  constexpr int64_t padded() const { return blocks() * 2 * lanes; }
  constexpr int64_t block_bytes() const { return quads() * 2 * lanes * 4; }
  // Of a row of inputs in steps: whole vectors, and a line apart from a power of two.
  constexpr int64_t row_bytes() const { return (inputs + 63) / 64 * 64 + 64; }
};

// Rounds a block of outputs' weights, rows of `weight` (outputs, inputs), to steps of each.
LC_DECLARE(void int8_weights(const Int8Layer& layer, const void* weight, bool bits16, int64_t block,
                             int8_t* out, int32_t* begin, float* steps, float* scratch))

}  // namespace lc
