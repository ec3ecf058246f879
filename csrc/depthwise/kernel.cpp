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
  const float* weight(int64_t ky, int64_t c) const {
    return job.weights + c * taps() + ky * job.kernel[1] * kLanes;
  }
  int64_t taps() const { return job.kernel[0] * job.kernel[1]; }
  int64_t left(int64_t column) const { return column * job.stride[1] - job.padding[1]; }
  void write(int64_t column, int64_t c, Vec x, int64_t some) const {
    const bool bf16 = sizeof(T) == 2;
    write_row(out, bf16, column * job.channels + c, activate(job.activation, x), some);
  }
};

// Asks for the outputs, and for the inputs that the row below will be the first to read: pixels lie
// too far apart for the processor to foresee either.
template <int kWidth, int kStride, int kColumns, int kVectors, class T>
LC_INLINE void fetch_ahead(const Row<T>& row, int64_t column, int64_t c) {
  constexpr int kLine = 64 / sizeof(T), kRun = kVectors * kLanes;
  const int64_t channels = row.job.channels;
  const T* out = row.out + column * channels + c;
  for (int i = 0; i < kColumns; ++i)
    for (int j = 0; j < kRun; j += kLine) prefetch_to_write(out + i * channels + j);
  if (row.top + row.rows.to >= row.job.height) return;
  const T* in = row.input(row.rows.to, row.left(column) + kWidth / 2) + c;
  for (int i = 0; i < kColumns * kStride; ++i)
    for (int j = 0; j < kRun; j += kLine) prefetch_to_read(in + i * channels + j);
}

// kColumns neighbouring outputs, whose windows reach outside of the image where kClipped. Weights
// and inputs are loaded once for all of them.
template <int kWidth, int kStride, int kColumns, bool kClipped, int kVectors, class T>
LC_INLINE void multiply_columns(const Row<T>& row, int64_t column, int64_t c) {
  const int64_t channels = row.job.channels, taps = row.taps(), left = row.left(column);
  fetch_ahead<kWidth, kStride, kColumns, kVectors>(row, column, c);
  Vec sums[kColumns][kVectors];
  for (int i = 0; i < kColumns; ++i)
    for (int v = 0; v < kVectors; ++v) sums[i][v] = load_unaligned(row.job.bias + c + v * kLanes);
  for (int64_t ky = row.rows.from; ky < row.rows.to; ++ky) {
    const T* in = row.input(ky, left) + c;
    const float* weight = row.weight(ky, c);
    Vec weights[kWidth][kVectors];
    for (int kx = 0; kx < kWidth; ++kx)
      for (int v = 0; v < kVectors; ++v)
        weights[kx][v] = load_unaligned(weight + (v * taps + kx) * kLanes);
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
      const float* weight = row.weight(ky, c) + kx * kLanes;
      for (int v = 0; v < kSums; ++v) {
        const Vec x = kVectors > 0
                          ? load_as_floats(in + v * kLanes)
                          : load_row(reinterpret_cast<const char*>(in), sizeof(T) == 2, 0, some);
        sums[v] = fma(x, load_unaligned(weight + v * row.taps() * kLanes), sums[v]);
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

template <int kWidth, int kStride, int kColumns, int kVectors, class T>
LC_INLINE void run_columns(const Row<T>& row, int64_t column, int64_t c) {
  const int64_t left = row.left(column), reach = (kColumns - 1) * kStride + kWidth;
  if (left >= 0 && left + reach <= row.job.width)
    multiply_columns<kWidth, kStride, kColumns, false, kVectors>(row, column, c);
  else
    multiply_columns<kWidth, kStride, kColumns, true, kVectors>(row, column, c);
}

// kVectors of channels of all outputs of a row.
template <int kWidth, int kStride, int kVectors, class T>
LC_INLINE void run_row(const Row<T>& row, int64_t c) {
  const int64_t outputs = row.job.out_width;
  int64_t i = 0;
  for (; i + 6 <= outputs; i += 6) run_columns<kWidth, kStride, 6, kVectors>(row, i, c);
  for (; i + 3 <= outputs; i += 3) run_columns<kWidth, kStride, 3, kVectors>(row, i, c);
  // Computing one or two outputs twice is faster than computing them one by one.
  if (i >= 3 && i < outputs) {
    run_columns<kWidth, kStride, 3, kVectors>(row, outputs - 3, c);
    i = outputs;
  }
  for (; i < outputs; ++i) run_vectors<kVectors>(row, i, c);
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
    if constexpr (kWidth > 0) {
      // A vector of channels after the other, as its weights then stay in the first cache.
      int64_t c = 0;
      for (; c + 2 * kLanes <= job.channels; c += 2 * kLanes) run_row<kWidth, kStride, 2>(row, c);
      for (; c + kLanes <= job.channels; c += kLanes) run_row<kWidth, kStride, 1>(row, c);
      for (int64_t i = 0; c < job.channels && i < job.out_width; ++i) run_vectors<0>(row, i, c);
    } else {
      for (int64_t i = 0; i < job.out_width; ++i) run_pixel(row, i);
    }
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
