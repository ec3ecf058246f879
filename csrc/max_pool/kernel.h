// The maximum of each window of an image, channel by channel.
#pragma once
#include "common/conv_geometry.h"
#include "simd/declare.h"

namespace lc {

struct MaxPoolJob : ConvGeometry {
  const void* x;  // (images, height, width, channels) float32, or bfloat16 where bf16
  void* out;      // (images, out height, out width, channels) in the dtype of the inputs
  bool bf16;
  bool relu;  // of the maximum
};

// Computes row `row` of images · out_height. A NaN is larger than any number.
LC_DECLARE(void max_pool_row(const MaxPoolJob& job, int64_t row))

}  // namespace lc
