// A convolution in int8.
//
// Outputs are computed in bands of whole rows. The pixels under a band are quantized once, with one
// scale, and what the kernel covers at each output (im2col) is a row of inputs like a linear
// layer's.
#pragma once
#include "common/conv_geometry.h"
#include "common/int8_layer.h"

namespace lc {

struct Int8ConvolutionJob : ConvGeometry {
  Int8Layer layer;  // its inputs are [kernel row][kernel column][channel]
  bool bf16;        // x and out are bfloat16
  bool vnni;        // whether the processor multiplies four pairs of int8 at a time
  const void* x;    // (images, height, width, channels)
  void* out;        // (images, out height, out width, outputs)

  // Rows of outputs in a band: enough for a call's rows of inputs. Scales, and so results, depend
  // on this number.
  int64_t band() const {
    const int64_t rows = (kInt8Rows + out_width - 1) / out_width;
    return rows < out_height ? rows : out_height;
  }
  int64_t bands() const { return (out_height + band() - 1) / band(); }  // of an image
  // Of a row of quantized pixels, with the padding around them.
  int64_t padded_row_bytes() const { return (width + 2 * padding[1]) * channels; }
  int64_t band_rows() const {  // rows of pixels under a band
    return (band() - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1;
  }
  // Floats of scratch, 64-byte aligned, for a band; whole vectors are read and written at its end.
  int64_t scratch() const {
    return kInt8Rows * layer.row_bytes() / 4 + (band_rows() * padded_row_bytes() + 3) / 4 + 64;
  }
};

// Computes one of images · bands() bands.
LC_DECLARE(void int8_band(const Int8ConvolutionJob& job, int64_t band, float* scratch))

}  // namespace lc
