// The kernel behind SparseLayerPlan; see sparse_layer/kernel.h for the idea.
//
// For a tile of samples: for each window of dims, its inputs -> [dim][sample] in the first-level
// cache, then every output's list over them; then sums [output][sample] -> rows.
#include "sparse_layer/kernel.h"

#include "simd/activate.h"
#include "simd/rows_out.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {
namespace {

constexpr int kVectors = 2;
constexpr int kSamples = kVectors * kLanes;

struct Scratch {
  char* window;       // [dim][sample]
  float* sums;        // [output][vector][lane]
  const char* zeros;  // a pixel of the padding
};

// The pixel under one tap for each sample of a tile: its channels, or zeros.
struct Pixels {
  const char* row[kSamples];
};

// The input pixel under the first tap for each sample of a tile.
struct Origins {
  int64_t image[kSamples];  // the index of the image's first pixel
  int64_t y[kSamples], x[kSamples];
};

LC_INLINE void find_origins(const SparseInputs& in, int64_t row, Origins& origins) {
  const int64_t area = in.out_height * in.out_width;
  int64_t image = row / area, y = row % area / in.out_width, x = row % in.out_width;
  for (int i = 0; i < kSamples; ++i) {
    origins.image[i] = image * in.height * in.width;
    // Past the last image: where no tap can reach.
    origins.y[i] = image < in.images ? y * in.stride[0] - in.padding[0] : -(int64_t{1} << 40);
    origins.x[i] = x * in.stride[1] - in.padding[1];
    if (++x == in.out_width) {
      x = 0;
      if (++y == in.out_height) {
        y = 0;
        ++image;
      }
    }
  }
}

LC_INLINE void find_pixels(const SparseInputs& in, const Origins& origins, int64_t tap,
                           int64_t pixel_bytes, const char* zeros, Pixels& pixels) {
  const int64_t down = tap / in.kernel[1] * in.dilation[0];
  const int64_t right = tap % in.kernel[1] * in.dilation[1];
  for (int i = 0; i < kSamples; ++i) {
    const int64_t y = origins.y[i] + down, x = origins.x[i] + right;
    const bool inside = static_cast<uint64_t>(y) < static_cast<uint64_t>(in.height) &&
                        static_cast<uint64_t>(x) < static_cast<uint64_t>(in.width);
    const int64_t at = (origins.image[i] + y * in.width + x) * pixel_bytes;
    pixels.row[i] = inside ? static_cast<const char*>(in.data) + at : zeros;
  }
}

// Lists of floats: a dim of the window is two vectors.
struct Wide {
  static const SparseWeights* list(const SparseLayer& layer) { return layer.weights; }

  // Channels [from, from + count) of each sample as dims of the window.
  static void load_dims(const Pixels& pixels, bool bf16, int64_t from, int64_t count, char* out) {
    float* window = reinterpret_cast<float*>(out);
    for (int v = 0; v < kVectors; ++v) {
      const char* const* rows = pixels.row + v * kLanes;
      int64_t d = 0;
      for (; d + kLanes <= count; d += kLanes) {
        Vec square[kLanes];
        for (int i = 0; i < kLanes; ++i)
          square[i] = bf16 ? load_wide(reinterpret_cast<const uint16_t*>(rows[i]) + from + d)
                           : load_unaligned(reinterpret_cast<const float*>(rows[i]) + from + d);
        transpose(square);
        for (int i = 0; i < kLanes; ++i) store(window + (d + i) * kSamples + v * kLanes, square[i]);
      }
      for (; d < count; ++d)
        for (int i = 0; i < kLanes; ++i)
          window[d * kSamples + v * kLanes + i] =
              bf16 ? widen(reinterpret_cast<const uint16_t*>(rows[i])[from + d])
                   : reinterpret_cast<const float*>(rows[i])[from + d];
    }
  }

  LC_INLINE void add_run(const SparseWeights* list, int64_t count, const char* window,
                         Vec (&sum)[kVectors]) {
    Vec more[kVectors] = {splat(0.f), splat(0.f)};
    for (const SparseWeights* end = list + count; list < end; ++list) {
      Vec w[4];
      splat4(list->weight, w[0], w[1], w[2], w[3]);
      for (int i = 0; i < 4; ++i) {
        const float* x = reinterpret_cast<const float*>(window + list->offset[i]);
        for (int v = 0; v < kVectors; ++v) {
          Vec& into = i % 2 == 0 ? sum[v] : more[v];
          into = fma(w[i], load(x + v * kLanes), into);
        }
      }
    }
    for (int v = 0; v < kVectors; ++v) sum[v] = add(sum[v], more[v]);
  }

  // Sums [output][vector][lane] as rows of outputs.
  static void write_tile(const SparseJob& job, int64_t row, const float* sums) {
    const int64_t outputs = job.layer.outputs, rows = job.x.rows() - row;
    for (int v = 0; v < kVectors; ++v) {
      const int64_t left = rows - v * kLanes, count = left < kLanes ? left : kLanes;
      for (int64_t c = 0; c < outputs && count > 0; c += kLanes) {
        const int64_t some = outputs - c < kLanes ? outputs - c : kLanes;
        Vec square[kLanes];
        for (int64_t i = 0; i < kLanes; ++i)
          square[i] = i < some ? load(sums + (c + i) * kSamples + v * kLanes) : splat(0.f);
        transpose(square);
        for (int64_t i = 0; i < count; ++i)
          write_row(job.out, job.x.bf16, (row + v * kLanes + i) * outputs + c, square[i], some);
      }
    }
  }
};

#if defined(__AVX512BF16__)
// Lists of bfloat16: a dim of the window is 32 samples, and two dims are multiplied at a time.
struct Pairs {
  static const SparsePairs* list(const SparseLayer& layer) { return layer.weight_pairs; }

  static void load_dims(const Pixels& pixels, bool, int64_t from, int64_t count, char* window) {
    // Interleaving two dims by 16 bits takes, of each 128-bit part, the lower four samples to the
    // first sixteen sums and the upper four to the last. Samples are laid out to keep both in
    // order.
    for (int64_t d = 0; d < count; d += 2 * kLanes) {
      const int64_t left = count - d;
      const __mmask32 some = left < 32 ? (__mmask32{1} << left) - 1 : ~__mmask32{0};
      Vec even[kLanes], odd[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int row = i / 4 * 4 + i % 2 * 2 + i % 4 / 2 * kLanes;
        const auto take = [&](int r) {
          return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(
              some, reinterpret_cast<const uint16_t*>(pixels.row[r]) + from + d));
        };
        even[i] = take(row);
        odd[i] = take(row + 1);
      }
      transpose(even);
      transpose(odd);
      const __m512i low = _mm512_set1_epi32(0xffff);
      for (int i = 0; i < kLanes && 2 * i < left; ++i) {
        const __m512i a = _mm512_castps_si512(even[i]), b = _mm512_castps_si512(odd[i]);
        char* out = window + (d + 2 * i) * 64;
        _mm512_store_si512(out,
                           _mm512_or_si512(_mm512_and_si512(a, low), _mm512_slli_epi32(b, 16)));
        if (2 * i + 1 < left)
          _mm512_store_si512(
              out + 64, _mm512_or_si512(_mm512_srli_epi32(a, 16), _mm512_andnot_si512(low, b)));
      }
    }
  }

  LC_INLINE void add_run(const SparsePairs* list, int64_t count, const char* window,
                         Vec (&sum)[kVectors]) {
    Vec more[kVectors] = {splat(0.f), splat(0.f)};
    const auto dot = [](Vec x, __m512i pair, __m512i w) {
      return _mm512_dpbf16_ps(x, reinterpret_cast<__m512bh>(pair), reinterpret_cast<__m512bh>(w));
    };
    for (const SparsePairs* end = list + count; list < end; ++list) {
      const auto input = [&](int i) { return _mm512_load_si512(window + list->offset[i]); };
      int two[2];
      memcpy(two, list->weight, sizeof two);
      const __m512i a = input(0), b = input(1), c = input(2), d = input(3);
      const __m512i w01 = _mm512_set1_epi32(two[0]), w23 = _mm512_set1_epi32(two[1]);
      sum[0] = dot(sum[0], _mm512_unpacklo_epi16(a, b), w01);
      sum[1] = dot(sum[1], _mm512_unpackhi_epi16(a, b), w01);
      more[0] = dot(more[0], _mm512_unpacklo_epi16(c, d), w23);
      more[1] = dot(more[1], _mm512_unpackhi_epi16(c, d), w23);
    }
    for (int v = 0; v < kVectors; ++v) sum[v] = add(sum[v], more[v]);
  }

  static void write_tile(const SparseJob& job, int64_t row, const float* sums) {
    const int64_t outputs = job.layer.outputs, rows = job.x.rows() - row;
    uint16_t* out = static_cast<uint16_t*>(job.out) + row * outputs;
    for (int64_t c = 0; c < outputs; c += 2 * kLanes) {
      const int64_t some = outputs - c;
      // Two outputs of a sample make 32 bits: of the lower and the upper four of every eight.
      Vec low[kLanes], high[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const auto samples = [&](int64_t output) {
          if (output >= outputs) return _mm512_setzero_si512();
          const float* at = sums + output * kSamples;
          return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load(at + kLanes), load(at)));
        };
        const __m512i a = samples(c + 2 * i), b = samples(c + 2 * i + 1);
        low[i] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(a, b));
        high[i] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(a, b));
      }
      transpose(low);
      transpose(high);
      const __mmask32 mask = some < 32 ? (__mmask32{1} << some) - 1 : ~__mmask32{0};
      const auto write = [&](int64_t sample, Vec bits) {
        if (sample < rows)
          _mm512_mask_storeu_epi16(out + sample * outputs + c, mask, _mm512_castps_si512(bits));
      };
      for (int i = 0; i < kLanes; ++i) {
        write(i / 4 * 8 + i % 4, low[i]);
        write(i / 4 * 8 + i % 4 + 4, high[i]);
      }
    }
  }
};
#endif

template <class F>
void load_window(const SparseJob& job, const Origins& origins, int64_t from, int64_t to,
                 const Scratch& scratch) {
  const SparseLayer& layer = job.layer;
  const int64_t channels = layer.channels;
  const int64_t dim_bytes = sizeof(F::list(layer)->weight[0]) == 2 ? 64 : kSamples * 4;
  const int64_t pixel_bytes = channels * (job.x.bf16 ? 2 : 4);
  Pixels pixels;
  char* out = scratch.window;
  while (from < to) {
    const int64_t tap = from / channels, channel = from % channels;
    const int64_t left = to - from;
    const int64_t count = channels - channel < left ? channels - channel : left;
    find_pixels(job.x, origins, tap, pixel_bytes, scratch.zeros, pixels);
    F::load_dims(pixels, job.x.bf16, channel, count, out);
    out += count * dim_bytes;
    from += count;
  }
}

template <class F>
void run(const SparseJob& job, int64_t row, const Scratch& scratch) {
  const SparseLayer& layer = job.layer;
  const int64_t dims = layer.taps * layer.channels;
  Origins origins;
  find_origins(job.x, row, origins);
  for (int64_t w = 0; w < layer.windows; ++w) {
    const int64_t from = w * layer.window;
    const int64_t to = from + layer.window < dims ? from + layer.window : dims;
    load_window<F>(job, origins, from, to, scratch);
    const auto* list = F::list(layer) + layer.starts[w];
    const SparseRun* runs = layer.runs + w * layer.outputs;
    const Activation activation = w + 1 == layer.windows ? layer.activation : Activation::none;
    for (int64_t i = 0; i < layer.outputs; ++i) {
      const SparseRun one = runs[i];
      float* out = scratch.sums + one.output * kSamples;
      Vec sum[kVectors];
      for (int v = 0; v < kVectors; ++v)
        sum[v] = w == 0 ? splat(layer.bias[one.output]) : load(out + v * kLanes);
      F::add_run(list, one.count, scratch.window, sum);
      for (int v = 0; v < kVectors; ++v) store(out + v * kLanes, activate(activation, sum[v]));
      list += one.count;
    }
  }
  F::write_tile(job, row, scratch.sums);
}

}  // namespace

void sparse_layer(const SparseJob& job, int64_t row, float* memory) {
  Scratch scratch;
  scratch.window = reinterpret_cast<char*>(memory);
  scratch.sums = memory + kSparseWindowBytes / 4;
  scratch.zeros = reinterpret_cast<const char*>(scratch.sums + job.layer.outputs * kSamples);
#if defined(__AVX512BF16__)
  if (job.layer.pairs) return run<Pairs>(job, row, scratch);
#endif
  run<Wide>(job, row, scratch);
}

}  // namespace LC_ISA
}  // namespace lc
