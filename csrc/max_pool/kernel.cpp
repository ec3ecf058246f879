// The kernel behind max_pool.
#include "max_pool/kernel.h"

#include "simd/rows_in.h"

namespace lc {
namespace LC_ISA {
namespace {

LC_INLINE void store_as_given(float* p, Vec x) { store_unaligned(p, x); }
LC_INLINE void store_as_given(uint16_t* p, Vec x) { store_upper(p, x); }

// The part of a window along one axis that lies inside the image.
struct Span {
  int64_t from, to;

  LC_INLINE Span of(int64_t at, int64_t stride, int64_t padding, int64_t kernel, int64_t size) {
    const int64_t from = at * stride - padding, to = from + kernel;
    return {from < 0 ? 0 : from, to > size ? size : to};
  }
};

// kVectors of channels of one window.
template <int kVectors, class T>
LC_INLINE void pool(const T* image, int64_t row_length, int64_t channels, Span rows, Span columns,
                    float least, T* out) {
  Vec largest[kVectors];
  for (int v = 0; v < kVectors; ++v) largest[v] = splat(least);
  for (int64_t y = rows.from; y < rows.to; ++y)
    for (int64_t x = columns.from; x < columns.to; ++x) {
      const T* pixel = image + y * row_length + x * channels;
      for (int v = 0; v < kVectors; ++v)
        largest[v] = larger(largest[v], load_as_floats(pixel + v * kLanes));
    }
  for (int v = 0; v < kVectors; ++v) store_as_given(out + v * kLanes, largest[v]);
}

template <class T>
void run(const MaxPoolJob& job, int64_t row) {
  const int64_t channels = job.channels, row_length = job.width * channels;
  const T* image = static_cast<const T*>(job.x) + row / job.out_height * job.height * row_length;
  T* out = static_cast<T*>(job.out) + row * job.out_width * channels;
  const float least = job.relu ? 0.f : -INFINITY;
  const Span rows =
      Span::of(row % job.out_height, job.stride[0], job.padding[0], job.kernel[0], job.height);
  for (int64_t i = 0; i < job.out_width; ++i, out += channels) {
    const Span columns = Span::of(i, job.stride[1], job.padding[1], job.kernel[1], job.width);
    int64_t c = 0;
    for (; c + 4 * kLanes <= channels; c += 4 * kLanes)
      pool<4>(image + c, row_length, channels, rows, columns, least, out + c);
    for (; c + kLanes <= channels; c += kLanes)
      pool<1>(image + c, row_length, channels, rows, columns, least, out + c);
    if (c == channels) continue;
    // The last channels, padded with zeros.
    Vec largest = splat(least);
    const size_t bytes = static_cast<size_t>(channels - c) * sizeof(T);
    T some[kLanes] = {};
    for (int64_t y = rows.from; y < rows.to; ++y)
      for (int64_t x = columns.from; x < columns.to; ++x) {
        memcpy(some, image + y * row_length + x * channels + c, bytes);
        largest = larger(largest, load_as_floats(some));
      }
    store_as_given(some, largest);
    memcpy(out + c, some, bytes);
  }
}

}  // namespace

void max_pool_row(const MaxPoolJob& job, int64_t row) {
  if (job.bf16) return run<uint16_t>(job, row);
  run<float>(job, row);
}

}  // namespace LC_ISA
}  // namespace lc
