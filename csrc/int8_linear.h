// A linear layer whose products are of 8-bit numbers: each row of inputs, and each output's
// weights, are whole multiples of a step of their own, at most 127 of it.
//
// Processors multiply unsigned numbers by signed ones, four pairs to a sum, so weights are stored
// moved up by 128, and 128 · Σ x is taken off the sum.
#pragma once
#include <cstddef>
#include <cstdint>

#include "isa.h"
#include "layer_activation.h"

namespace lc {

constexpr int32_t kUp = 128;
// Rows that a call takes: weights that it fetches meet all of them.
constexpr int64_t kInt8Rows = 48;
// Inputs of which no sum overflows 32 bits.
constexpr int64_t kMostInt8Inputs = 65536;

struct Int8Layer {
  int64_t outputs, inputs;
  Activation activation;
  int64_t lanes;
  const uint8_t* weights;  // [block][quad][output of the block][4]
  const float* steps;      // [block][output]
  const float* bias;       // [block][output]

  constexpr int64_t quads() const { return (inputs + 3) / 4; }
  constexpr int64_t blocks() const { return (outputs + 2 * lanes - 1) / (2 * lanes); }
  constexpr int64_t block_bytes() const { return quads() * 2 * lanes * 4; }
  // Of a row of inputs in steps: whole vectors, and a line apart from a power of two.
  constexpr int64_t row_bytes() const { return (inputs + 63) / 64 * 64 + 64; }
};

// Layers one after the other: what lies between them never leaves the caches.
struct Int8Job {
  const Int8Layer* layers;
  int64_t count;
  bool bits16;    // x and out are bfloat16
  bool dots;      // the processor multiplies four pairs at a time
  const void* x;  // (rows, inputs of the first layer)
  void* out;      // (rows, outputs of the last one)
};

// Floats of scratch, 64-byte aligned, for a call of int8_rows.
inline int64_t int8_scratch(const Int8Layer* layers, int64_t count) {
  int64_t bytes = 0, between = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (layers[i].row_bytes() > bytes) bytes = layers[i].row_bytes();
    if (i + 1 < count && layers[i].outputs > between) between = layers[i].outputs;
  }
  return kInt8Rows * (bytes / 4 + between) + 16;
}

// Rounds a block of outputs' weights, rows of `weight` (outputs, inputs), to steps of each.
LC_DECLARE(void int8_weights(const Int8Layer& layer, const void* weight, bool bits16, int64_t block,
                             uint8_t* out, float* steps, float* scratch))
// Computes rows [first, first + rows), at most kInt8Rows.
LC_DECLARE(void int8_rows(const Int8Job& job, int64_t first, int64_t rows, float* scratch))

}  // namespace lc
