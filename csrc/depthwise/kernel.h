// A depthwise convolution, with float32 weights for inputs of either dtype.
#pragma once
#include <cstdint>

#include "common/conv_geometry.h"
#include "common/layer_activation.h"
#include "simd/declare.h"

namespace lc {

struct DepthwiseJob : ConvGeometry {
  const void* x;  // (images, height, width, channels) float32, or bfloat16 where bf16
  void* out;      // (images, out height, out width, channels) in the dtype of the inputs
  bool bf16;
  // Both are padded to whole vectors of channels; taps are [row][column] of the kernel.
  const float* weights;  // (vectors, taps, kLanes)
  const float* bias;     // (vectors, kLanes)
  Activation activation;
};

// Computes rows [from, to) of images · out_height.
LC_DECLARE(void depthwise_rows(const DepthwiseJob& job, int64_t from, int64_t to))

}  // namespace lc
