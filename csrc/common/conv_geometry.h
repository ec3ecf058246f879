// The geometry of a convolution or of pooling: a window that moves over images.
#pragma once
#include <cstdint>

namespace lc {

// Pairs are (rows, columns); padding is above and to the left. Jobs begin with it.
struct ConvGeometry {
  int64_t images, height, width, channels, out_height, out_width;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
};

}  // namespace lc
