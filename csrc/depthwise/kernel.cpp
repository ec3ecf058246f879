// The kernel behind DepthwisePlan.
#include "depthwise/kernel.h"

#include "simd/activate.h"
#include "simd/rows_in.h"
#include "simd/rows_out.h"

namespace lc {
namespace LC_ISA {
namespace {

// Which points of a kernel lie inside the picture: those from `from` on, before `to`.
struct Span {
  int64_t from, to;

  // The kernel begins at `start`, with `apart` between its points.
  LC_INLINE Span of(int64_t start, int64_t apart, int64_t kernel, int64_t size) {
    const int64_t from = start < 0 ? (-start + apart - 1) / apart : 0;
    const int64_t reach = size - start;  // the first point at or past the end
    const int64_t to = reach <= 0 ? 0 : (reach + apart - 1) / apart;
    return {from, to < kernel ? to : kernel};
  }
};

template <class T>
struct Row {
  const DepthwiseJob& job;
  const T* picture;
  T* out;
  int64_t top;  // the row of the picture where the kernel begins
  Span rows;

  const T* input(int64_t ky, int64_t x) const {
    return picture + ((top + ky * job.dilation[0]) * job.width + x) * job.channels;
  }
  const float* weight(int64_t ky) const { return job.weights + ky * job.kernel[1] * job.room; }
  int64_t left(int64_t column) const { return column * job.stride[1] - job.padding[1]; }
  void write(int64_t column, int64_t c, Vec x, int64_t some) const {
    const bool bits16 = sizeof(T) == 2;
    write_row(out, bits16, column * job.channels + c, activate(job.activation, x), some);
  }
};

// kColumns outputs side by side, some of whose inputs lie outside the picture where kClipped.
// Weights and inputs are loaded once for all of them.
template <int kWidth, int kStride, int kColumns, bool kClipped, int kVectors, class T>
LC_INLINE void side_by_side(const Row<T>& row, int64_t column, int64_t c) {
  const int64_t channels = row.job.channels, room = row.job.room, left = row.left(column);
  Vec sums[kColumns][kVectors];
  for (int i = 0; i < kColumns; ++i)
    for (int v = 0; v < kVectors; ++v) sums[i][v] = load_unaligned(row.job.bias + c + v * kLanes);
  for (int64_t ky = row.rows.from; ky < row.rows.to; ++ky) {
    const T* in = row.input(ky, left) + c;
    const float* weight = row.weight(ky) + c;
    Vec weights[kWidth][kVectors];
    for (int kx = 0; kx < kWidth; ++kx)
      for (int v = 0; v < kVectors; ++v)
        weights[kx][v] = load_unaligned(weight + kx * room + v * kLanes);
    LC_UNROLLED
    for (int x = 0; x < (kColumns - 1) * kStride + kWidth; ++x) {
      if (kClipped && (left + x < 0 || left + x >= row.job.width)) continue;
      for (int v = 0; v < kVectors; ++v) {
        const Vec one = load_as_floats(in + x * channels + v * kLanes);
        for (int i = 0; i < kColumns; ++i) {
          const int kx = x - i * kStride;
          if (kx >= 0 && kx < kWidth) sums[i][v] = fma(one, weights[kx][v], sums[i][v]);
        }
      }
    }
  }
  for (int i = 0; i < kColumns; ++i)
    for (int v = 0; v < kVectors; ++v) row.write(column + i, c + v * kLanes, sums[i][v], kLanes);
}

// One output of any kernel: kVectors of channels, or the last ones, less than a vector, where
// kVectors is 0.
template <int kVectors, class T>
LC_INLINE void one(const Row<T>& row, int64_t column, int64_t c) {
  constexpr int kSums = kVectors > 0 ? kVectors : 1;
  const int64_t left = row.left(column), apart = row.job.dilation[1];
  const int64_t some = kVectors > 0 ? kLanes : row.job.channels - c;
  const Span columns = Span::of(left, apart, row.job.kernel[1], row.job.width);
  Vec sums[kSums];
  for (int v = 0; v < kSums; ++v) sums[v] = load_unaligned(row.job.bias + c + v * kLanes);
  for (int64_t ky = row.rows.from; ky < row.rows.to; ++ky)
    for (int64_t kx = columns.from; kx < columns.to; ++kx) {
      const T* in = row.input(ky, left + kx * apart) + c;
      const float* weight = row.weight(ky) + kx * row.job.room + c;
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
LC_INLINE void alone(const Row<T>& row, int64_t column) {
  int64_t c = 0;
  for (; c + 4 * kLanes <= row.job.channels; c += 4 * kLanes) one<4>(row, column, c);
  for (; c + kLanes <= row.job.channels; c += kLanes) one<1>(row, column, c);
  if (c < row.job.channels) one<0>(row, column, c);
}

// All channels of kColumns outputs.
template <int kWidth, int kStride, int kColumns, bool kClipped, class T>
LC_INLINE void channels_of(const Row<T>& row, int64_t column) {
  int64_t c = 0;
  for (; c + 2 * kLanes <= row.job.channels; c += 2 * kLanes)
    side_by_side<kWidth, kStride, kColumns, kClipped, 2>(row, column, c);
  for (; c + kLanes <= row.job.channels; c += kLanes)
    side_by_side<kWidth, kStride, kColumns, kClipped, 1>(row, column, c);
  if (c < row.job.channels)
    for (int i = 0; i < kColumns; ++i) one<0>(row, column + i, c);
}

template <int kWidth, int kStride, int kColumns, class T>
LC_INLINE void together(const Row<T>& row, int64_t column) {
  const int64_t left = row.left(column), reach = (kColumns - 1) * kStride + kWidth;
  if (left >= 0 && left + reach <= row.job.width)
    channels_of<kWidth, kStride, kColumns, false>(row, column);
  else
    channels_of<kWidth, kStride, kColumns, true>(row, column);
}

// kWidth is the kernel's, or 0 where no code was made for it.
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
      for (; i + 6 <= job.out_width; i += 6) together<kWidth, kStride, 6>(row, i);
      for (; i + 3 <= job.out_width; i += 3) together<kWidth, kStride, 3>(row, i);
      // To compute one or two again is faster than to compute one or two apart.
      if (i >= 3 && i < job.out_width) {
        together<kWidth, kStride, 3>(row, job.out_width - 3);
        i = job.out_width;
      }
    }
    for (; i < job.out_width; ++i) alone(row, i);
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
  if (job.bits16) return choose<uint16_t>(job, from, to);
  choose<float>(job, from, to);
}

}  // namespace LC_ISA
}  // namespace lc
