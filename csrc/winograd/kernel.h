// A 3 × 3 convolution of stride 1 with 16 products for 4 outputs in position of 36: Winograd's
// F(2 × 2, 3 × 3) (Lavin and Gray, arXiv 1509.09308, section 4.1).
//
// Outputs are computed in tiles of 2 × 2. Sums and differences of a tile's 4 × 4 inputs, and of a
// kernel's 3 × 3 weights, have 16 positions; at each the layer is a matrix product over the
// channels, and sums and differences of the 16 results are the four outputs.
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/conv_geometry.h"
#include "common/layer_activation.h"
#include "simd/declare.h"

namespace lc {

constexpr int64_t kPositions = 16;
// Tiles whose transformed inputs stay in a second-level cache.
constexpr int64_t kMaxTiles = 48;
// Of a block of tiles and outputs.
constexpr int64_t kMaxResults = kPositions * 12 * 32;

// What is multiplied: floats, bfloat16 two at a time, or int8, with a scale for a tile's inputs at
// a position and one for an output's weights there.
enum class Multiplied { floats, pairs, int8 };

struct WinogradLayer {
  int64_t outputs, channels;
  bool bf16;  // weights, inputs and outputs are bfloat16
  Multiplied multiplied;
  int64_t lanes;

  constexpr int64_t element() const {  // bytes of what is multiplied
    return multiplied == Multiplied::floats ? 4 : multiplied == Multiplied::pairs ? 2 : 1;
  }
  // Channels are transformed a vector of floats, or of pairs, at a time.
  constexpr int64_t padded_channels() const {
    return round_up(channels, multiplied == Multiplied::pairs ? 2 * lanes : lanes);
  }
  constexpr int64_t blocks() const { return (outputs + 2 * lanes - 1) / (2 * lanes); }
  constexpr int64_t block_bytes() const { return padded_channels() * 2 * lanes * element(); }
  constexpr int64_t weight_bytes() const { return kPositions * blocks() * block_bytes(); }
  // Of int8: scales, one for each output at each position.
  constexpr int64_t scales() const { return kPositions * blocks() * 2 * lanes; }
  // Of a row of transformed inputs: a cache line off a power of two, against conflict misses.
  constexpr int64_t row_bytes() const { return padded_channels() * element() + 64; }

  static constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
};

struct WinogradJob : ConvGeometry {
  WinogradLayer layer;
  // [position][block][channel, or pair or four of them][output of the block]
  const char* weights;
  const int32_t* compensation;  // in int8, [position][block][output]: −128 Σ w
  const float* scales;          // in int8, [position][block][output]
  bool vnni;                    // whether the processor multiplies four pairs of int8 at a time
  const float* bias;            // [block][output]
  Activation activation;
  const void* x;  // (images, height, width, channels)
  void* out;      // (images, out height, out width, outputs)

  int64_t tiles_down() const { return (out_height + 1) / 2; }
  int64_t tiles_across() const { return (out_width + 1) / 2; }
  int64_t tiles() const { return images * tiles_down() * tiles_across(); }
};

// Floats of scratch, 64-byte aligned, for a call of winograd_tiles over that many tiles.
constexpr int64_t winograd_scratch(const WinogradLayer& layer, int64_t tiles) {
  const int64_t unrounded = kPositions * (layer.padded_channels() + tiles);
  return kMaxResults + kPositions * tiles * layer.row_bytes() / 4 + layer.channels + 16 +
         (layer.multiplied == Multiplied::int8 ? unrounded : 0);
}
// The same for winograd_weights.
constexpr int64_t winograd_weight_scratch(const WinogradLayer& layer) {
  return layer.multiplied == Multiplied::int8 ? (kPositions + 1) * layer.padded_channels() : 0;
}

// Transforms the weights of a block: `weight` is (outputs, 9, channels), rows of the kernel first.
// `compensation` and `scales` are those of an int8 job, and null for others.
LC_DECLARE(void winograd_weights(const WinogradLayer& layer, const void* weight, int64_t block,
                                 char* out, int32_t* compensation, float* scales, float* scratch))
// Computes the outputs of tiles [first, first + count).
LC_DECLARE(void winograd_tiles(const WinogradJob& job, int64_t first, int64_t count,
                               float* scratch))

}  // namespace lc
