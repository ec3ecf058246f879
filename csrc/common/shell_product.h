// The product of a tile with shells, see common/shells.h: linear_confidence and mlp_confidence
// share it.
#pragma once
#include "common/shells.h"
#include "simd/log2e.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

// Form::wide: four weights, each times one vector of samples.
struct Wide {
  static constexpr int kVectors = 1;
  static const Quad* quads(const Shells& s) { return s.quads; }
  // The logit in base 2 of a sum, and `total` + 2^logit.
  LC_INLINE Vec logit(Vec sum) { return sum; }
  LC_INLINE Vec add_power(Vec total, Vec sum) { return add_exp2(total, sum); }

  // Adds a quad's products to the running sums; returns whether its shell ends.
  LC_INLINE bool take(const Quad& quad, const char* window, Vec (&sum)[kVectors]) {
    const auto feature = [window](uint64_t offset) {
      return load(reinterpret_cast<const float*>(window + offset * 8));
    };
    Vec w0, w1, w2, w3;
    splat4(quad.weight, w0, w1, w2, w3);
    uint64_t offsets;
    memcpy(&offsets, quad.offset, sizeof offsets);
    const uint64_t last = offsets >> 48;
    Vec more = mul(w0, feature(offsets & 0xffff));
    more = fma(w1, feature((offsets >> 16) & 0xffff), more);
    more = fma(w2, feature((offsets >> 32) & 0xffff), more);
    sum[0] = add(sum[0], fma(w3, feature(last & ~uint64_t{1}), more));
    return last & 1;
  }
};

#if defined(__AVX512BF16__)
// Form::pairs: two weights at once, times two vectors of samples.
struct Pairs {
  static constexpr int kVectors = 2;
  static const PairQuad* quads(const Shells& s) { return s.pairs; }
  LC_INLINE Vec logit(Vec sum) { return mul(sum, splat(kLog2E)); }
  LC_INLINE Vec add_power(Vec total, Vec sum) { return add_exp(total, sum); }

  LC_INLINE bool take(const PairQuad& quad, const char* window, Vec (&sum)[kVectors]) {
    const auto feature = [window](uint64_t offset) {
      return _mm512_load_si512(window + offset * 8);
    };
    uint64_t offsets;
    memcpy(&offsets, quad.offset, sizeof offsets);
    const uint64_t last = offsets >> 48;
    const __m512i a = feature(offsets & 0xffff), b = feature((offsets >> 16) & 0xffff);
    const __m512i c = feature((offsets >> 32) & 0xffff), d = feature(last & ~uint64_t{1});
    int two[2];
    memcpy(two, quad.weight, sizeof two);
    const __m512bh w01 = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two[0]));
    const __m512bh w23 = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two[1]));
    const auto dot = [](Vec more, __m512i pair, __m512bh w) {
      return _mm512_dpbf16_ps(more, reinterpret_cast<__m512bh>(pair), w);
    };
    // Samples are laid out so that interleaving returns the first sixteen and the last in order.
    const Vec low = dot(splat(0.f), _mm512_unpacklo_epi16(a, b), w01);
    const Vec high = dot(splat(0.f), _mm512_unpackhi_epi16(a, b), w01);
    sum[0] = add(sum[0], dot(low, _mm512_unpacklo_epi16(c, d), w23));
    sum[1] = add(sum[1], dot(high, _mm512_unpackhi_epi16(c, d), w23));
    return last & 1;
  }
};

// Lays out bfloat16 rows as [dim][32 samples]; rows past the end of the batch become zeros. Of
// every eight lanes the first four are samples of the first sixteen, the others of the last.
LC_INLINE void load_pair_tile(const uint16_t* rows, int64_t row, int64_t rows_end, int64_t dims,
                              void* tile) {
  for (int64_t d = 0; d < dims; d += kLanes) {
    const int64_t left = dims - d;
    const Mask some = static_cast<Mask>(left < kLanes ? (1 << left) - 1 : 0xffff);
    Vec half[2][kLanes];
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < kLanes; ++i) {
        const int64_t r = row + h * kLanes + i;
        const uint16_t* at = rows + (r < rows_end ? r * dims + d : 0);
        const __m256i bits = _mm256_maskz_loadu_epi16(r < rows_end ? some : Mask{0}, at);
        half[h][i] = _mm512_castsi512_ps(_mm512_cvtepu16_epi32(bits));
      }
      transpose(half[h]);
    }
    for (int i = 0; i < kLanes && i < left; ++i)
      _mm512_store_si512(
          static_cast<char*>(tile) + (d + i) * 64,
          _mm512_packus_epi32(_mm512_castps_si512(half[0][i]), _mm512_castps_si512(half[1][i])));
  }
}
#endif

// Running sums of one output over one block: out[j], F::kVectors vectors of samples, after shell j.
// `tile` is the block's samples, all dims of them.
template <class F>
LC_INLINE void accumulate_output(const Shells& s, int64_t block, int64_t output, const float* tile,
                                 float* out) {
  constexpr int64_t kDimBytes = 4 * kLanes;  // of a tile: one vector, in either form
  const QuadRange& range = s.ranges[block * s.outputs + output];
  const char* window = reinterpret_cast<const char*>(tile) + block * s.block_step * kDimBytes;
  const auto* quads = F::quads(s);
  Vec sum[F::kVectors];
  for (Vec& one : sum) one = splat(block == 0 ? s.bias[output] : 0.f);
  const auto* end = quads + range.outer;
  for (const auto* q = quads + range.base; q < end; ++q) F::take(*q, window, sum);
  // Every quad stores the running sum at its shell's output; a shell that ends moves on to the
  // next. Redundant stores are cheaper than an unpredictable branch.
  end = quads + range.end;
  for (const auto* q = quads + range.outer; q < end; ++q) {
    const int64_t ends = F::take(*q, window, sum);
    for (int v = 0; v < F::kVectors; ++v) store(out + v * kLanes, sum[v]);
    out += ends * F::kVectors * kLanes;
  }
}

}  // namespace LC_ISA
}  // namespace lc
