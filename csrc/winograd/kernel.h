// A 3 × 3 convolution of stride 1 with 16 products for 4 outputs in place of 36: Winograd's
// F(2 × 2, 3 × 3), as Lavin and Gray give it (arXiv 1509.09308, section 4.1).
//
// Outputs are made in tiles of 2 × 2. Sums and differences of a tile's 4 × 4 inputs, and of a
// kernel's 3 × 3 weights, lie in 16 places; at each place the layer is a matrix product over the
// channels, and sums and differences of the 16 results are the four outputs.
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/conv_geometry.h"
#include "common/layer_activation.h"
#include "simd/declare.h"

namespace lc {

constexpr int64_t kPlaces = 16;
// Tiles whose transformed inputs stay in a second-level cache.
constexpr int64_t kMostTiles = 48;
// Of a block of tiles and outputs.
constexpr int64_t kMostResults = kPlaces * 12 * 32;

// What is multiplied: floats, bfloat16 two at a time, or 8 bits. In 8 bits a tile's inputs at a
// place get one step, and so do an output's weights.
enum class Multiplied { floats, pairs, bytes };

struct WinogradLayer {
  int64_t outputs, channels;
  bool bits16;  // weights, inputs and outputs are bfloat16
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
  constexpr int64_t weight_bytes() const { return kPlaces * blocks() * block_bytes(); }
  // Of 8 bits: of a number for each output at each place.
  constexpr int64_t steps() const { return kPlaces * blocks() * 2 * lanes; }
  // Of a row of transformed inputs: a line apart from a power of two, which would crowd the cache.
  constexpr int64_t row_bytes() const { return padded_channels() * element() + 64; }

  static constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
};

struct WinogradJob : ConvGeometry {
  WinogradLayer layer;
  // [place][block][channel, or pair or four of them][output of the block]
  const char* weights;
  const int32_t* begin;  // of sums of 8 bits, [place][block][output]: −128 Σ w
  const float* steps;    // of weights in 8 bits, [place][block][output]
  bool dots;             // the processor multiplies four pairs of 8 bits at a time
  const float* bias;     // [block][output]
  Activation activation;
  const void* x;  // (images, height, width, channels)
  void* out;      // (images, out height, out width, outputs)

  int64_t tiles_down() const { return (out_height + 1) / 2; }
  int64_t tiles_across() const { return (out_width + 1) / 2; }
  int64_t tiles() const { return images * tiles_down() * tiles_across(); }
};

// Floats of scratch, 64-byte aligned, for a call of winograd_tiles over so many tiles.
constexpr int64_t winograd_scratch(const WinogradLayer& layer, int64_t tiles) {
  const int64_t unrounded = kPlaces * (layer.padded_channels() + tiles);
  return kMostResults + kPlaces * tiles * layer.row_bytes() / 4 + layer.channels + 16 +
         (layer.multiplied == Multiplied::bytes ? unrounded : 0);
}
// The same for winograd_weights.
constexpr int64_t winograd_weight_scratch(const WinogradLayer& layer) {
  return layer.multiplied == Multiplied::bytes ? (kPlaces + 1) * layer.padded_channels() : 0;
}

// Transforms the weights of a block: `weight` is (outputs, 9, channels), rows of the kernel first.
// `begin` and `steps` are those of a job of 8 bits, and null for others.
LC_DECLARE(void winograd_weights(const WinogradLayer& layer, const void* weight, int64_t block,
                                 char* out, int32_t* begin, float* steps, float* scratch))
// Computes the outputs of tiles [first, first + count).
LC_DECLARE(void winograd_tiles(const WinogradJob& job, int64_t first, int64_t count,
                               float* scratch))

}  // namespace lc
