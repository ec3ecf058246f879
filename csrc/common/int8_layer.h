// A layer with int8 weights, quantized symmetrically with a scale per output.
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/layer_activation.h"
#include "simd/declare.h"

namespace lc {

// Rows of a call: every weight that it fetches is multiplied with all of them.
constexpr int64_t kInt8Rows = 48;
// Inputs whose sums cannot overflow 32 bits.
constexpr int64_t kMaxInt8Inputs = 65536;

struct Int8Layer {
  int64_t outputs, inputs;
  Activation activation;
  int64_t lanes;
  const int8_t* weights;        // [block][quad][output of the block][4]
  const int32_t* compensation;  // [block][output]: −128 Σ w, for inputs with a zero point of 128
  const float* scales;          // [block][output]
  const float* bias;            // [block][output]

  constexpr int64_t quads() const { return (inputs + 3) / 4; }
  constexpr int64_t blocks() const { return (outputs + 2 * lanes - 1) / (2 * lanes); }
  constexpr int64_t padded() const { return blocks() * 2 * lanes; }
  constexpr int64_t block_bytes() const { return quads() * 2 * lanes * 4; }
  // Of a row of quantized inputs: whole vectors, and a cache line off a power of two.
  constexpr int64_t row_bytes() const { return (inputs + 63) / 64 * 64 + 64; }
};

// Quantizes the weights of a block of outputs, rows of `weight` (outputs, inputs).
LC_DECLARE(void quantize_int8_weights(const Int8Layer& layer, const void* weight, bool bf16,
                                      int64_t block, int8_t* out, int32_t* compensation,
                                      float* scales, float* scratch))

}  // namespace lc
