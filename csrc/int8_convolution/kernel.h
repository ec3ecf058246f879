// A convolution whose products are of 8-bit numbers.
//
// Outputs are made in bands of whole rows. The pixels under a band are rounded once, to whole
// multiples of one step, and what each kernel covers of them is a row of inputs like a linear
// layer's.
#pragma once
#include "common/conv_geometry.h"
#include "common/int8_layer.h"

namespace lc {

struct Int8Pixels : ConvGeometry {
  Int8Layer layer;  // its inputs are [kernel row][kernel column][channel]
  bool bits16;      // x and out are bfloat16
  bool dots;        // the processor multiplies four pairs at a time
  const void* x;    // (images, height, width, channels)
  void* out;        // (images, out height, out width, outputs)

  // Rows of outputs in a band: enough for a call's rows of inputs. Steps, and so results, depend on
  // them.
  int64_t band() const {
    const int64_t rows = (kInt8Rows + out_width - 1) / out_width;
    return rows < out_height ? rows : out_height;
  }
  int64_t bands() const { return (out_height + band() - 1) / band(); }  // of an image
  // Of pixels, with the padding around them.
  int64_t padded_row_bytes() const { return (width + 2 * padding[1]) * channels; }
  int64_t band_rows() const {  // of pixels
    return (band() - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1;
  }
  // Floats of scratch, 64-byte aligned, for a band. Vectors are read and written past the ends.
  int64_t scratch() const {
    return kInt8Rows * layer.row_bytes() / 4 + (band_rows() * padded_row_bytes() + 3) / 4 + 64;
  }
};

// Computes a band of an image, counted through all images.
LC_DECLARE(void int8_band(const Int8Pixels& job, int64_t band, float* scratch))

}  // namespace lc
