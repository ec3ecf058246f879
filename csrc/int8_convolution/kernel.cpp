// The kernel behind Int8ConvolutionPlan; see int8_convolution/kernel.h for the idea.
#include "int8_convolution/kernel.h"

#include "common/int8_outputs.h"

namespace lc {
namespace LC_ISA {
namespace {

// The rows of pixels under a band; some may lie above or below the image.
struct PixelRows {
  int64_t top, rows;
  const char* image;
  int64_t row_bytes;

  // Row i, or null outside of the image.
  const char* row(int64_t i, int64_t height) const {
    const int64_t y = top + i;
    return y < 0 || y >= height ? nullptr : image + y * row_bytes;
  }
};

// Quantizes the rows, with the padding, into rows of padded_row_bytes; returns their scale.
LC_INLINE float quantize_pixels(const Int8ConvolutionJob& job, const PixelRows& under,
                                uint8_t* out) {
  const int64_t count = job.width * job.channels;
  Vec largest = splat(0.f);
  for (int64_t i = 0; i < under.rows; ++i) {
    const char* row = under.row(i, job.height);
    if (row != nullptr) largest = max_magnitude_of_row(largest, row, job.bf16, count);
  }
  const Quantization to = quantization_for(largest_lane(largest));
  const int64_t side = job.padding[1] * job.channels;
  for (int64_t i = 0; i < under.rows; ++i, out += job.padded_row_bytes()) {
    const char* row = under.row(i, job.height);
    if (row == nullptr) {
      memset(out, kZeroPoint, static_cast<size_t>(job.padded_row_bytes()));
      continue;
    }
    memset(out, kZeroPoint, static_cast<size_t>(side));
    quantize_row(row, job.bf16, count, to, out + side);
    memset(out + side + count, kZeroPoint, static_cast<size_t>(side));
  }
  return to.scale;
}

// Copies whole vectors: what lies past the end is overwritten later, or its weights are 0.
LC_INLINE uint8_t* copy(uint8_t* out, const uint8_t* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) memcpy(out + i, from + i, 64);
  return out + count;
}

// im2col: what the kernel covers where its first pixel is at `from`.
LC_INLINE void gather(const Int8ConvolutionJob& job, const uint8_t* from, uint8_t* out) {
  const int64_t down = job.dilation[0] * job.padded_row_bytes();
  for (int64_t y = 0; y < job.kernel[0]; ++y, from += down) {
    if (job.dilation[1] == 1) {
      out = copy(out, from, job.kernel[1] * job.channels);
      continue;
    }
    for (int64_t x = 0; x < job.kernel[1]; ++x)
      out = copy(out, from + x * job.dilation[1] * job.channels, job.channels);
  }
}

}  // namespace

void int8_band(const Int8ConvolutionJob& job, int64_t band, float* scratch) {
  const Int8Layer& layer = job.layer;
  const int64_t image = band / job.bands(), first = band % job.bands() * job.band();
  const int64_t rows = job.out_height - first < job.band() ? job.out_height - first : job.band();
  const int64_t row_bytes = job.width * job.channels * (job.bf16 ? 2 : 4);
  const char* pixels = static_cast<const char*>(job.x) + image * job.height * row_bytes;
  const PixelRows under{first * job.stride[0] - job.padding[0],
                        (rows - 1) * job.stride[0] + (job.kernel[0] - 1) * job.dilation[0] + 1,
                        pixels, row_bytes};
  uint8_t* x = reinterpret_cast<uint8_t*>(scratch);
  uint8_t* quantized = x + kInt8Rows * layer.row_bytes();
  float row_scales[kInt8Rows];
  row_scales[0] = quantize_pixels(job, under, quantized);
  for (int64_t r = 1; r < kInt8Rows; ++r) row_scales[r] = row_scales[0];
  const int64_t count = rows * job.out_width;
  int64_t down = 0, across = 0;
  for (int64_t done = 0; done < count; done += kInt8Rows) {
    const int64_t now = count - done < kInt8Rows ? count - done : kInt8Rows;
    for (int64_t r = 0; r < now; ++r) {
      const int64_t pixel =
          down * job.stride[0] * job.padded_row_bytes() + across * job.stride[1] * job.channels;
      gather(job, quantized + pixel, x + r * layer.row_bytes());
      if (++across == job.out_width) across = 0, ++down;
    }
    const int64_t at = (image * job.out_height + first) * job.out_width + done;
    run_layer(layer, job.vnni, x, row_scales, now, {job.out, job.bf16, at});
  }
}

}  // namespace LC_ISA
}  // namespace lc
