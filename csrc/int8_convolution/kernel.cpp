// The kernel behind Int8ConvolutionPlan; see int8_convolution.h for the idea.
#include "int8_convolution/kernel.h"

#include "common/int8_outputs.h"

namespace lc {
namespace LC_ISA {
namespace {

// Rows of pixels under a band, of which some lie above or below the image.
struct Under {
  int64_t top, rows;
  const char* image;
  int64_t row_bytes;

  // Row i of them, null outside of the image.
  const char* row(int64_t i, int64_t height) const {
    const int64_t y = top + i;
    return y < 0 || y >= height ? nullptr : image + y * row_bytes;
  }
};

// Rounds them, with the padding, into rows of padded_row_bytes.
LC_INLINE float round_pixels(const Int8Pixels& job, const Under& under, uint8_t* out) {
  const int64_t count = job.width * job.channels;
  Vec most = splat(0.f);
  for (int64_t i = 0; i < under.rows; ++i) {
    const char* row = under.row(i, job.height);
    if (row != nullptr) most = larger_of_row(most, row, job.bits16, count);
  }
  const Step step = step_for(largest_lane(most));
  const int64_t side = job.padding[1] * job.channels;
  for (int64_t i = 0; i < under.rows; ++i, out += job.padded_row_bytes()) {
    const char* row = under.row(i, job.height);
    if (row == nullptr) {
      memset(out, kUp, static_cast<size_t>(job.padded_row_bytes()));
      continue;
    }
    memset(out, kUp, static_cast<size_t>(side));
    round_row(row, job.bits16, count, step, out + side);
    memset(out + side + count, kUp, static_cast<size_t>(side));
  }
  return step.worth;
}

// Copies by whole vectors: what lies past the end is written over later, or meets no weight.
LC_INLINE uint8_t* copy(uint8_t* out, const uint8_t* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) memcpy(out + i, from + i, 64);
  return out + count;
}

// What the kernel covers where its first pixel is at `from`.
LC_INLINE void gather(const Int8Pixels& job, const uint8_t* from, uint8_t* out) {
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

void int8_band(const Int8Pixels& job, int64_t band, float* scratch) {
  const Int8Layer& layer = job.layer;
  const int64_t image = band / job.bands(), first = band % job.bands() * job.band();
  const int64_t rows = job.out_height - first < job.band() ? job.out_height - first : job.band();
  const int64_t row_bytes = job.width * job.channels * (job.bits16 ? 2 : 4);
  const char* pixels = static_cast<const char*>(job.x) + image * job.height * row_bytes;
  const Under under{first * job.stride[0] - job.padding[0],
                    (rows - 1) * job.stride[0] + (job.kernel[0] - 1) * job.dilation[0] + 1, pixels,
                    row_bytes};
  uint8_t* x = reinterpret_cast<uint8_t*>(scratch);
  uint8_t* rounded = x + kInt8Rows * layer.row_bytes();
  float worth[kInt8Rows];
  worth[0] = round_pixels(job, under, rounded);
  for (int64_t r = 1; r < kInt8Rows; ++r) worth[r] = worth[0];
  const int64_t count = rows * job.out_width;
  int64_t down = 0, across = 0;
  for (int64_t done = 0; done < count; done += kInt8Rows) {
    const int64_t now = count - done < kInt8Rows ? count - done : kInt8Rows;
    for (int64_t r = 0; r < now; ++r) {
      const int64_t pixel =
          down * job.stride[0] * job.padded_row_bytes() + across * job.stride[1] * job.channels;
      gather(job, rounded + pixel, x + r * layer.row_bytes());
      if (++across == job.out_width) across = 0, ++down;
    }
    const int64_t at = (image * job.out_height + first) * job.out_width + done;
    run_layer(layer, job.dots, x, worth, now, {job.out, job.bits16, at});
  }
}

}  // namespace LC_ISA
}  // namespace lc
