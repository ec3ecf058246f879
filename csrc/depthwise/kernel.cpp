// The kernel behind DepthwisePlan.
#include "depthwise/kernel.h"

#include "simd/activate.h"
#include "simd/rows_in.h"
#include "simd/rows_out.h"

namespace lc {
namespace LC_ISA {
namespace {

// The taps of a kernel along one axis that lie inside the image: [from, to).
struct Span {
  int64_t from, to;

  // The kernel's first tap is at `start`.
  LC_INLINE Span of(int64_t start, int64_t dilation, int64_t kernel, int64_t size) {
    const int64_t from = start < 0 ? (-start + dilation - 1) / dilation : 0;
    const int64_t reach = size - start;  // to the first tap past the end
    const int64_t to = reach <= 0 ? 0 : (reach + dilation - 1) / dilation;
    return {from, to < kernel ? to : kernel};
  }
};

template <class T>
struct Row {
  const DepthwiseJob& job;
  const T* image;
  T* out;
  int64_t top;  // the row of the image where the kernel begins
  Span rows;

  const T* input(int64_t ky, int64_t x) const {
    return image + ((top + ky * job.dilation[0]) * job.width + x) * job.channels;
  }
  const float* weight(int64_t ky) const { return job.weights + ky * job.kernel[1] * job.padded; }
  int64_t left(int64_t column) const { return column * job.stride[1] - job.padding[1]; }
  void write(int64_t column, int64_t c, Vec x, int64_t some) const {
    const bool bf16 = sizeof(T) == 2;
    write_row(out, bf16, column * job.channels + c, activate(job.activation, x), some);
  }
};

// kColumns neighbouring outputs, whose windows reach outside of the image where kClipped. Weights
// and inputs are loaded once for all of them.
template <int kWidth, int kStride, int kColumns, bool kClipped, int kVectors, class T>
LC_INLINE void multiply_columns(const Row<T>& row, int64_t column, int64_t c) {
  const int64_t channels = row.job.channels, padded = row.job.padded, left = row.left(column);
  Vec sums[kColumns][kVectors];
  for (int i = 0; i < kColumns; ++i)
    for (int v = 0; v < kVectors; ++v) sums[i][v] = load_unaligned(row.job.bias + c + v * kLanes);
  for (int64_t ky = row.rows.from; ky < row.rows.to; ++ky) {
    const T* in = row.input(ky, left) + c;
    const float* weight = row.weight(ky) + c;
    Vec weights[kWidth][kVectors];
    for (int kx = 0; kx < kWidth; ++kx)
      for (int v = 0; v < kVectors; ++v)
        weights[kx][v] = load_unaligned(weight + kx * padded + v * kLanes);
    LC_UNROLLED
    for (int x = 0; x < (kColumns - 1) * kStride + kWidth; ++x) {
      if (kClipped && (left + x < 0 || left + x >= row.job.width)) continue;
      for (int v = 0; v < kVectors; ++v) {
        const Vec pixel = load_as_floats(in + x * channels + v * kLanes);
        for (int i = 0; i < kColumns; ++i) {
          const int kx = x - i * kStride;
          if (kx >= 0 && kx < kWidth) sums[i][v] = fma(pixel, weights[kx][v], sums[i][v]);
        }
      }
    }
  }
  for (int i = 0; i < kColumns; ++i)
    for (int v = 0; v < kVectors; ++v) row.write(column + i, c + v * kLanes, sums[i][v], kLanes);
}

// One output of any kernel: kVectors of channels, or, where kVectors is 0, the last channels that
// fill no vector.
template <int kVectors, class T>
LC_INLINE void run_vectors(const Row<T>& row, int64_t column, int64_t c) {
  constexpr int kSums = kVectors > 0 ? kVectors : 1;
  const int64_t left = row.left(column), dilation = row.job.dilation[1];
  const int64_t some = kVectors > 0 ? kLanes : row.job.channels - c;
  const Span columns = Span::of(left, dilation, row.job.kernel[1], row.job.width);
  Vec sums[kSums];
  for (int v = 0; v < kSums; ++v) sums[v] = load_unaligned(row.job.bias + c + v * kLanes);
  for (int64_t ky = row.rows.from; ky < row.rows.to; ++ky)
    for (int64_t kx = columns.from; kx < columns.to; ++kx) {
      const T* in = row.input(ky, left + kx * dilation) + c;
      const float* weight = row.weight(ky) + kx * row.job.padded + c;
      for (int v = 0; v < kSums; ++v) {
        const Vec x = kVectors > 0
                          ? load_as_floats(in + v * kLanes)
                          : load_row(reinterpret_cast<const char*>(in), sizeof(T) == 2, 0, some);
        sums[v] = fma(x, load_unaligned(weight + v * kLanes), sums[v]);
      }
    }
  for (int v = 0; v < kSums; ++v) row.write(column, c + v * kLanes, sums[v], some);
}

// All channels of one output of any kernel.
template <class T>
LC_INLINE void run_pixel(const Row<T>& row, int64_t column) {
  int64_t c = 0;
  for (; c + 4 * kLanes <= row.job.channels; c += 4 * kLanes) run_vectors<4>(row, column, c);
  for (; c + kLanes <= row.job.channels; c += kLanes) run_vectors<1>(row, column, c);
  if (c < row.job.channels) run_vectors<0>(row, column, c);
}

// All channels of kColumns outputs.
template <int kWidth, int kStride, int kColumns, bool kClipped, class T>
LC_INLINE void channels_of(const Row<T>& row, int64_t column) {
  int64_t c = 0;
  for (; c + 2 * kLanes <= row.job.channels; c += 2 * kLanes)
    multiply_columns<kWidth, kStride, kColumns, kClipped, 2>(row, column, c);
  for (; c + kLanes <= row.job.channels; c += kLanes)
    multiply_columns<kWidth, kStride, kColumns, kClipped, 1>(row, column, c);
  if (c < row.job.channels)
    for (int i = 0; i < kColumns; ++i) run_vectors<0>(row, column + i, c);
}

template <int kWidth, int kStride, int kColumns, class T>
LC_INLINE void run_columns(const Row<T>& row, int64_t column) {
  const int64_t left = row.left(column), reach = (kColumns - 1) * kStride + kWidth;
  if (left >= 0 && left + reach <= row.job.width)
    channels_of<kWidth, kStride, kColumns, false>(row, column);
  else
    channels_of<kWidth, kStride, kColumns, true>(row, column);
}

// kWidth is the kernel's width, or 0 for any.
template <int kWidth, int kStride, class T>
void run(const DepthwiseJob& job, int64_t first, int64_t last) {
  for (int64_t y = first; y < last; ++y) {
    const int64_t top = y % job.out_height * job.stride[0] - job.padding[0];
    const Row<T> row{
        job,
        static_cast<const T*>(job.x) + y / job.out_height * job.height * job.width * job.channels,
        static_cast<T*>(job.out) + y * job.out_width * job.channels, top,
        Span::of(top, job.dilation[0], job.kernel[0], job.height)};
    int64_t i = 0;
    if constexpr (kWidth > 0) {
      for (; i + 6 <= job.out_width; i += 6) run_columns<kWidth, kStride, 6>(row, i);
      for (; i + 3 <= job.out_width; i += 3) run_columns<kWidth, kStride, 3>(row, i);
      // Computing one or two outputs twice is faster than computing them one by one.
      if (i >= 3 && i < job.out_width) {
        run_columns<kWidth, kStride, 3>(row, job.out_width - 3);
        i = job.out_width;
      }
    }
    for (; i < job.out_width; ++i) run_pixel(row, i);
  }
}

template <class T>
void choose(const DepthwiseJob& job, int64_t from, int64_t to) {
  const int64_t width = job.dilation[1] == 1 ? job.kernel[1] : 0, stride = job.stride[1];
  if (width == 3 && stride == 1) return run<3, 1, T>(job, from, to);
  if (width == 3 && stride == 2) return run<3, 2, T>(job, from, to);
  if (width == 5 && stride == 1) return run<5, 1, T>(job, from, to);
  if (width == 5 && stride == 2) return run<5, 2, T>(job, from, to);
  if (width == 7 && stride == 1) return run<7, 1, T>(job, from, to);
  run<0, 1, T>(job, from, to);
}

}  // namespace

void depthwise_rows(const DepthwiseJob& job, int64_t from, int64_t to) {
  if (job.bf16) return choose<uint16_t>(job, from, to);
  choose<float>(job, from, to);
}

}  // namespace LC_ISA
}  // namespace lc
