// The product of a tile of samples with blocks of outputs (prototypes, units of a layer), and the
// online softmax over them: prototype_confidence, mlp_confidence, masked_linear and token_nll share
// it.
//
// Samples lie across the lanes; several vectors of them are multiplied with four outputs at once,
// so that the sums stay in registers and every load is used many times. The dims are cut into
// blocks whose part of a tile fits the first-level cache, as do the sums of a block of outputs.
#pragma once
#include "common/tile_sizes.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

// Four outputs times this many vectors of samples fill the registers.
constexpr int kVectors = kLanes == 16 ? 4 : 2;
constexpr int kTile = kVectors * kLanes;
static_assert(kRows % kTile == 0, "a call scores whole tiles");
// Dims of a tile that take half of a first-level cache.
constexpr int64_t kDims = 16384 / (kTile * static_cast<int64_t>(sizeof(float)));

// The term of a weight and an input: w · x, (x − w)², or the two products of a pair of bfloat16 in
// the bits of one float.
enum class Terms { products, squares, pairs };

#if defined(__AVX512BF16__)
constexpr bool kHasPairs = true;
LC_INLINE Vec dot_pairs(Vec a, Vec b, Vec sum) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}
#else
constexpr bool kHasPairs = false;
LC_INLINE Vec dot_pairs(Vec, Vec, Vec sum) { return sum; }
#endif

template <Terms kTerms>
LC_INLINE Vec with_term(Vec x, Vec w, Vec sum) {
  if (kTerms == Terms::products) return fma(x, w, sum);
  if (kTerms == Terms::pairs) return dot_pairs(x, w, sum);
  const Vec difference = sub(x, w);
  return fma(difference, difference, sum);
}

// Adds the terms of some dims to the sums of kCount outputs. Sums of one block of dims start at
// zero and are then added: fewer roundings than one long sum. A tile that is not full has only
// kWide vectors; a sample's sum is the same. kPack outputs are interleaved in `packed`.
template <Terms kTerms, int kCount, int kWide, int64_t kPack>
LC_INLINE void accumulate(const float* x, int64_t stride, const float* packed, int64_t dims,
                          bool first, float* sums) {
  Vec sum[kCount][kWide];
  for (int c = 0; c < kCount; ++c)
    for (int v = 0; v < kWide; ++v) sum[c][v] = splat(0.f);
  for (int64_t d = 0; d < dims; ++d) {
    Vec at[kWide];
    for (int v = 0; v < kWide; ++v) at[v] = load(x + v * stride + d * kLanes);
    for (int c = 0; c < kCount; ++c) {
      const Vec w = splat(packed[d * kPack + c]);
      for (int v = 0; v < kWide; ++v) sum[c][v] = with_term<kTerms>(at[v], w, sum[c][v]);
    }
  }
  for (int c = 0; c < kCount; ++c)
    for (int v = 0; v < kWide; ++v) {
      float* out = sums + (c * kVectors + v) * kLanes;
      store(out, first ? sum[c][v] : add(load(out), sum[c][v]));
    }
}

// Sums [output][vector][lane] over all dims. x is [vector][dim][lane], packed is
// [group][dim][kPack], in groups of kGroup outputs or a multiple of it.
template <Terms kTerms, int kWide = kVectors, int64_t kPack = kGroup>
LC_INLINE void accumulate_block(const float* x, const float* packed, int64_t dims, int64_t outputs,
                                float* sums) {
  const int64_t stride = dims * kLanes;
  int64_t from = 0;
  do {
    const int64_t count = dims - from < kDims ? dims - from : kDims;
    for (int64_t c = 0; c < outputs; c += kGroup) {
      const float* part = x + from * kLanes;
      const float* group = packed + (c - c % kPack) * dims + from * kPack + c % kPack;
      float* out = sums + c * kTile;
      switch (outputs - c) {
        case 1:
          accumulate<kTerms, 1, kWide, kPack>(part, stride, group, count, from == 0, out);
          break;
        case 2:
          accumulate<kTerms, 2, kWide, kPack>(part, stride, group, count, from == 0, out);
          break;
        case 3:
          accumulate<kTerms, 3, kWide, kPack>(part, stride, group, count, from == 0, out);
          break;
        default: accumulate<kTerms, 4, kWide, kPack>(part, stride, group, count, from == 0, out);
      }
    }
    from += kDims;
  } while (from < dims);
}

// The softmax of a tile's samples over the classes so far, in base 2. Logits may be 10^12 or −10^6,
// so the largest one is subtracted.
struct Softmax {
  float largest[kTile], total[kTile], chosen[kTile];
  float moment[kTile];  // Σ 2^d · d with d the distance from the largest, for an entropy
};

LC_INLINE void start(Softmax& softmax) {
  for (int i = 0; i < kTile; ++i) {
    softmax.largest[i] = -3.0e38f;
    softmax.total[i] = softmax.chosen[i] = softmax.moment[i] = 0.f;
  }
}

// x − shift, at least −200: 2^-200 is nothing beside 2^0.
LC_INLINE Vec difference(Vec x, Vec shift) { return max(splat(-200.f), sub(x, shift)); }

// Takes the classes [from, from + classes) into the softmax; logit(sum, class of the block, vector)
// turns sums into logits in place. `labels` are those of the tile's samples, which fill `vectors`
// of its vectors.
template <bool kMoment = false, typename Logit>
LC_INLINE void take_in(float* sums, int64_t from, int64_t classes, const int64_t* labels,
                       Softmax& softmax, Logit logit, int vectors = kVectors) {
  for (int v = 0; v < vectors; ++v) {
    float* column = sums + v * kLanes;
    const Vec before = load_unaligned(softmax.largest + v * kLanes);
    Vec largest = before;
    for (int64_t c = 0; c < classes; ++c) {
      const Vec x = logit(load(column + c * kTile), c, v);
      store(column + c * kTile, x);
      largest = max(largest, x);
    }
    Vec total = splat(0.f), moment = splat(0.f);
    for (int64_t c = 0; c < classes; ++c) {
      const Vec distance = difference(load(column + c * kTile), largest), power = exp2(distance);
      total = add(total, power);
      if (kMoment) moment = fma(power, distance, moment);
    }
    const Vec so_far = load_unaligned(softmax.total + v * kLanes);
    const Vec change = difference(before, largest), scale = exp2(change);
    if (kMoment) {
      const Vec old = fma(change, so_far, load_unaligned(softmax.moment + v * kLanes));
      store_unaligned(softmax.moment + v * kLanes, fma(old, scale, moment));
    }
    store_unaligned(softmax.total + v * kLanes, fma(so_far, scale, total));
    store_unaligned(softmax.largest + v * kLanes, largest);
  }
  for (int i = 0; i < vectors * kLanes; ++i)
    if (labels[i] >= from && labels[i] < from + classes)
      softmax.chosen[i] = sums[(labels[i] - from) * kTile + i];
}

// Writes log p of the first `samples` of a tile; without labels that of the largest logit.
LC_INLINE void emit(const Softmax& softmax, bool labelled, int64_t samples, float* log_probs) {
  for (int64_t i = 0; i < kTile && i < samples; ++i) {
    const double largest = softmax.largest[i];
    const double at = labelled ? softmax.chosen[i] - largest : 0.;
    const double log_p = (at - log2(static_cast<double>(softmax.total[i]))) * 0.69314718055994531;
    log_probs[i] = static_cast<float>(log_p > 0. ? 0. : log_p);
  }
}

}  // namespace LC_ISA
}  // namespace lc
