// The inner loop over shells: what linear_confidence and mlp_confidence share. See shells.h.
#pragma once
#include "common/shells.h"
#include "simd/log2e.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

// Form::wide: four weights meet one vector of samples each.
struct Wide {
  static constexpr int kVectors = 1;
  static const Quad* quads(const Shells& s) { return s.quads; }
  // A sum as a logit in base 2, and 2 to its power.
  LC_INLINE Vec logit(Vec sum) { return sum; }
  LC_INLINE Vec power(Vec sum) { return exp2(sum); }

  // Adds a quad's products to the running sums; says whether its shell ends.
  LC_INLINE bool take(const Quad& quad, const char* window, Vec (&sum)[kVectors]) {
    const auto feature = [window](uint64_t place) {
      return load(reinterpret_cast<const float*>(window + place * 8));
    };
    Vec w0, w1, w2, w3;
    splat4(quad.weight, w0, w1, w2, w3);
    uint64_t places;
    memcpy(&places, quad.place, sizeof places);
    const uint64_t last = places >> 48;
    Vec more = mul(w0, feature(places & 0xffff));
    more = fma(w1, feature((places >> 16) & 0xffff), more);
    more = fma(w2, feature((places >> 32) & 0xffff), more);
    sum[0] = add(sum[0], fma(w3, feature(last & ~uint64_t{1}), more));
    return last & 1;
  }
};

#if defined(__AVX512BF16__)
// Form::pairs: two weights at once meet two vectors of samples.
struct Pairs {
  static constexpr int kVectors = 2;
  static const PairQuad* quads(const Shells& s) { return s.pairs; }
  LC_INLINE Vec logit(Vec sum) { return mul(sum, splat(kLog2E)); }
  LC_INLINE Vec power(Vec sum) { return exp(sum); }

  LC_INLINE bool take(const PairQuad& quad, const char* window, Vec (&sum)[kVectors]) {
    const auto feature = [window](uint64_t place) { return _mm512_load_si512(window + place * 8); };
    uint64_t places;
    memcpy(&places, quad.place, sizeof places);
    const uint64_t last = places >> 48;
    const __m512i a = feature(places & 0xffff), b = feature((places >> 16) & 0xffff);
    const __m512i c = feature((places >> 32) & 0xffff), d = feature(last & ~uint64_t{1});
    int two[2];
    memcpy(two, quad.weight, sizeof two);
    const __m512bh w01 = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two[0]));
    const __m512bh w23 = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two[1]));
    const auto dot = [](Vec more, __m512i pair, __m512bh w) {
      return _mm512_dpbf16_ps(more, reinterpret_cast<__m512bh>(pair), w);
    };
    // Samples lie in the tile so that interleaving gives the first sixteen and the last in order.
    const Vec low = dot(splat(0.f), _mm512_unpacklo_epi16(a, b), w01);
    const Vec high = dot(splat(0.f), _mm512_unpackhi_epi16(a, b), w01);
    sum[0] = add(sum[0], dot(low, _mm512_unpacklo_epi16(c, d), w23));
    sum[1] = add(sum[1], dot(high, _mm512_unpackhi_epi16(c, d), w23));
    return last & 1;
  }
};

// A block of bfloat16 rows as [dim][32 samples], rows past the end of the batch zeros. Of every
// eight numbers the first four are samples of the first sixteen, the others of the last.
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
LC_INLINE void run_strand(const Shells& s, int64_t block, int64_t output, const float* tile,
                          float* out) {
  constexpr int64_t kDimBytes = 4 * kLanes;  // of a tile: one vector, in either form
  const Strand& strand = s.strands[block * s.outputs + output];
  const char* window = reinterpret_cast<const char*>(tile) + block * s.block_step * kDimBytes;
  const auto* quads = F::quads(s);
  Vec sum[F::kVectors];
  for (Vec& one : sum) one = splat(block == 0 ? s.bias[output] : 0.f);
  const auto* end = quads + strand.outer;
  for (const auto* q = quads + strand.base; q < end; ++q) F::take(*q, window, sum);
  // Every quad stores the running sum where the current shell ends; the place moves on when it
  // does. Storing too often is cheaper than a branch that no predictor can learn.
  end = quads + strand.end;
  for (const auto* q = quads + strand.outer; q < end; ++q) {
    const int64_t ends = F::take(*q, window, sum);
    for (int v = 0; v < F::kVectors; ++v) store(out + v * kLanes, sum[v]);
    out += ends * F::kVectors * kLanes;
  }
}

}  // namespace LC_ISA
}  // namespace lc
