// A linear layer or convolution with few nonzero weights, as lists of those weights.
//
// Samples (rows of a linear layer, output pixels of a convolution) lie across the lanes, so that a
// weight is multiplied with a whole tile after one broadcast, whatever the pattern: at density d
// the layer costs about d times a dense one. A convolution is the same over (taps, channels), its
// rows gathered from channels-last pixels.
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/conv_geometry.h"
#include "common/layer_activation.h"
#include "simd/declare.h"

namespace lc {

// Bytes that a dim of a tile takes: two vectors of floats, or 32 samples of bfloat16.
constexpr int64_t sparse_dim_bytes(bool pairs, int lanes) {
  return pairs ? 64 : 2 * lanes * static_cast<int64_t>(sizeof(float));
}
// Samples of a tile.
constexpr int64_t sparse_samples(int lanes) { return 2 * lanes; }
constexpr int64_t kSparseWindowBytes = 28 * 1024;  // of a 32 KB first-level cache
constexpr int64_t kMaxSparseSamples = 32;

// Four weights of one output and the offsets of their inputs in the window, in bytes.
struct SparseWeights {
  float weight[4];
  uint16_t offset[4];
};
// The same for inputs and weights of bfloat16 on a processor that multiplies them two at a time.
struct SparsePairs {
  uint16_t weight[4];
  uint16_t offset[4];
};

// The list of an output in one window of dims. Runs are ordered by length, which makes their ends
// predictable.
struct SparseRun {
  int32_t output, count;  // count: in fours
};

struct SparseLayer {
  int64_t outputs, taps, channels;
  int64_t windows, window;  // dims = taps · channels, cut into windows of this many
  bool pairs;
  const SparseWeights* weights;  // or null where pairs
  const SparsePairs* weight_pairs;
  const SparseRun* runs;  // [window][output]
  const int64_t* starts;  // [window], into weights or weight_pairs
  const float* bias;      // [output]
  Activation activation;
};

// Where the rows of a tile come from. A linear layer is a convolution over one pixel per row.
struct SparseInputs : ConvGeometry {
  const void* data;  // (images, height, width, channels) float32, or bfloat16 where bf16
  bool bf16;

  int64_t rows() const { return images * out_height * out_width; }
};

struct SparseJob {
  SparseLayer layer;
  SparseInputs x;
  void* out;  // (rows, outputs) in the dtype of the inputs
};

// Floats of scratch, 64-byte aligned and zeroed, for one call.
constexpr int64_t sparse_scratch(const SparseLayer& layer) {
  return kSparseWindowBytes / 4 + layer.outputs * kMaxSparseSamples + layer.channels +
         2 * kMaxSparseSamples;
}

// Computes rows [row, row + a tile's) with no allocation.
LC_DECLARE(void sparse_layer(const SparseJob& job, int64_t row, float* scratch))

}  // namespace lc
