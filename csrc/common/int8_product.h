// Quantization to int8, symmetric to ±127, and products of quantized rows with a block of outputs.
//
// VNNI multiplies uint8 by int8, four pairs to a sum, so rows are stored with a zero point of 128:
// an output's sums start at its compensation, −128 Σ w.
#pragma once
#include "simd/activate.h"
#include "simd/rows_in.h"
#include "simd/simd.h"

// Most processors with AVX-512 have VNNI: enabled for the functions that use it, asked for at run
// time.
#if defined(__AVX512F__) && defined(__GNUC__)
#define LC_HAS_VNNI
#define LC_VNNI __attribute__((target("avx512vnni")))
// The same for all functions between the two macros.
#if defined(__clang__)
#define LC_BEGIN_VNNI \
  _Pragma("clang attribute push(__attribute__((target(\"avx512vnni\"))), apply_to = function)")
#define LC_END_VNNI _Pragma("clang attribute pop")
#else
#define LC_BEGIN_VNNI _Pragma("GCC push_options") _Pragma("GCC target(\"avx512vnni\")")
#define LC_END_VNNI _Pragma("GCC pop_options")
#endif
#else
#define LC_VNNI
#endif

namespace lc {
namespace LC_ISA {

constexpr int kZeroPoint = 128;
constexpr int kOutputs = 2 * kLanes;  // of a block
// Rows multiplied with a block of outputs at once: their sums fill the registers.
constexpr int kRowsAtOnce = 12;
// Rows whose largest magnitude is smaller are quantized to zeros.
constexpr float kMinLargest = 1e-30f;

#if defined(__AVX512F__)
// The bits of magnitudes are ordered like the magnitudes; infinity and NaN come last.
LC_INLINE Vec max_magnitude(Vec largest, Vec x) {
  const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7FFFFFFF));
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(largest), bits));
}
LC_INLINE float largest_lane(Vec magnitudes) {
  const int32_t bits = _mm512_reduce_max_epi32(_mm512_castps_si512(magnitudes));
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
// The largest lane of each of 16 vectors of magnitudes.
LC_INLINE void largest_lanes(const Vec (&magnitudes)[16], float* out) {
  __m512i x[16];
  for (int i = 0; i < 16; ++i) x[i] = _mm512_castps_si512(magnitudes[i]);
  for (int i = 0; i < 8; ++i)
    x[i] = _mm512_max_epi32(_mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]),
                            _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]));
  for (int i = 0; i < 4; ++i)
    x[i] = _mm512_max_epi32(_mm512_unpacklo_epi64(x[2 * i], x[2 * i + 1]),
                            _mm512_unpackhi_epi64(x[2 * i], x[2 * i + 1]));
  for (int i = 0; i < 2; ++i)
    x[i] = _mm512_max_epi32(_mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0x44),
                            _mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0xEE));
  store(out, _mm512_castsi512_ps(_mm512_max_epi32(_mm512_shuffle_i32x4(x[0], x[1], 0x88),
                                                  _mm512_shuffle_i32x4(x[0], x[1], 0xDD))));
}
#else
LC_INLINE Vec max_magnitude(Vec largest, Vec x) { return larger(largest, absolute(x)); }
LC_INLINE float largest_lane(Vec magnitudes) {
  alignas(64) float lanes[kLanes];
  store(lanes, magnitudes);
  float largest = lanes[0];
  for (int i = 1; i < kLanes; ++i)
    if (lanes[i] > largest || lanes[i] != lanes[i]) largest = lanes[i];
  return largest;
}
LC_INLINE void largest_lanes(const Vec (&magnitudes)[16], float* out) {
  for (int i = 0; i < 16; ++i) out[i] = largest_lane(magnitudes[i]);
}
#endif

// x ≈ scale · q with q = round(x · inverse_scale) in [−127, 127].
struct Quantization {
  float inverse_scale;
  float scale;  // NaN if a value is not finite
};

// The scales for a vector of largest magnitudes.
LC_INLINE void scales_for(Vec largest, float* inverse_scales, float* scales) {
  store(inverse_scales, keep(div(splat(127.f), largest), largest, splat(kMinLargest)));
  store(scales, add(mul(largest, splat(1.f / 127.f)), mul(largest, splat(0.f))));
}

LC_INLINE Quantization quantization_for(float largest) {
  alignas(64) float inverse_scales[kLanes], scales[kLanes];
  scales_for(splat(largest), inverse_scales, scales);
  return {inverse_scales[0], scales[0]};
}

// Rounds to int8. Values outside of [−127, 127] come with values that are not finite, whose scale
// is NaN: any result will do.
LC_INLINE void store_int8(int8_t* at, Vec x) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x));
  memcpy(at, &bytes, sizeof bytes);
#else
  alignas(64) float lanes[kLanes];
  store(lanes, round(x));
  for (int i = 0; i < kLanes; ++i) {
    const bool fits = lanes[i] >= -127.f && lanes[i] <= 127.f;
    at[i] = fits ? static_cast<int8_t>(lanes[i]) : int8_t{0};
  }
#endif
}

// The same with the zero point added.
LC_INLINE void store_uint8(uint8_t* at, const Vec& x) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x));
  const __m128i shifted = _mm_xor_si128(bytes, _mm_set1_epi8(static_cast<char>(kZeroPoint)));
  memcpy(at, &shifted, sizeof shifted);
#else
  int8_t rounded[kLanes];
  store_int8(rounded, x);
  for (int i = 0; i < kLanes; ++i) at[i] = static_cast<uint8_t>(rounded[i] + kZeroPoint);
#endif
}

// The same for a row of `count`; values(i) is the vector from i on.
template <class Values>
LC_INLINE void store_uint8_row(uint8_t* at, int64_t count, const Values& values) {
  int64_t i = 0;
#if defined(__AVX512F__)
  // Four vectors packed at once take a third of the instructions.
  const __m512i zero_point = _mm512_set1_epi8(static_cast<char>(kZeroPoint));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    const auto rounded = [&](int v) { return _mm512_cvtps_epi32(values(i + v * kLanes)); };
    const __m512i low = _mm512_packs_epi32(rounded(0), rounded(1));
    const __m512i high = _mm512_packs_epi32(rounded(2), rounded(3));
    const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
    _mm512_storeu_si512(at + i, _mm512_xor_si512(bytes, zero_point));
  }
#endif
  for (; i < count; i += kLanes) store_uint8(at + i, values(i));
}

// The lane-wise maximum of `largest` and the magnitudes of a row.
LC_INLINE Vec max_magnitude_of_row(Vec largest, const char* row, bool bf16, int64_t count) {
  int64_t i = 0;
#if defined(__AVX512F__)
  // The bits of bfloat16 are ordered like floats' too.
  if (bf16) {
    __m512i bits = _mm512_setzero_si512();
    for (; i + 2 * kLanes <= count; i += 2 * kLanes)
      bits = _mm512_max_epu16(
          bits, _mm512_and_si512(_mm512_loadu_si512(row + i * 2), _mm512_set1_epi16(0x7FFF)));
    const __m512i even = _mm512_slli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFF0000));
    largest = max_magnitude(largest, _mm512_castsi512_ps(_mm512_max_epi32(even, odd)));
  }
#endif
  for (; i < count; i += kLanes) largest = max_magnitude(largest, load_row(row, bf16, i, count));
  return largest;
}

LC_INLINE Quantization quantization_of_row(const char* row, bool bf16, int64_t count) {
  return quantization_for(largest_lane(max_magnitude_of_row(splat(0.f), row, bf16, count)));
}

// Quantizes a row; writes whole vectors.
LC_INLINE void quantize_row(const char* row, bool bf16, int64_t count, const Quantization& to,
                            uint8_t* out) {
  const Vec inverse_scale = splat(to.inverse_scale);
  const auto quantize = [&](bool narrow) {
    store_uint8_row(out, count,
                    [&](int64_t i) { return mul(load_row(row, narrow, i, count), inverse_scale); });
  };
  bf16 ? quantize(true) : quantize(false);
}

// Σ w · x of kCount rows and a block of outputs, whose weights are [quad][output][4], into
// [row][output].
template <int kCount>
static void multiply_plain(const uint8_t* x, int64_t row_bytes, const int8_t* weights,
                           int64_t quads, const int32_t* compensation, int32_t* sums) {
  for (int i = 0; i < kCount * kOutputs; ++i) sums[i] = compensation[i % kOutputs];
  for (int64_t q = 0; q < quads; ++q, weights += kOutputs * 4)
    for (int r = 0; r < kCount; ++r) {
      const uint8_t* four = x + r * row_bytes + q * 4;
      for (int c = 0; c < kOutputs; ++c)
        for (int i = 0; i < 4; ++i) sums[r * kOutputs + c] += weights[c * 4 + i] * four[i];
    }
}

#if defined(__AVX512F__)
#if defined(__GNUC__)
using Ints = __v16si;  // GCC keeps sums of type __m512i in memory
#else
using Ints = __m512i;
#endif

// The same, four products at a time; the sums stay in registers.
template <int kCount>
LC_VNNI static void multiply_vnni(const uint8_t* x, int64_t row_bytes, const int8_t* weights,
                                  int64_t quads, const int32_t* compensation, int32_t* sums) {
  Ints low[kCount], high[kCount];
  const __m512i start0 = _mm512_loadu_si512(compensation);
  const __m512i start1 = _mm512_loadu_si512(compensation + kLanes);
  LC_UNROLLED
  for (int r = 0; r < kCount; ++r) low[r] = (Ints)start0, high[r] = (Ints)start1;
  for (int64_t q = 0; q < quads; ++q, weights += kOutputs * 4) {
    const __m512i w0 = _mm512_load_si512(weights), w1 = _mm512_load_si512(weights + 64);
    for (int r = 0; r < kCount; ++r) {
      int32_t four;
      memcpy(&four, x + r * row_bytes + q * 4, sizeof four);
      const __m512i each = _mm512_set1_epi32(four);
      low[r] = (Ints)_mm512_dpbusd_epi32((__m512i)low[r], each, w0);
      high[r] = (Ints)_mm512_dpbusd_epi32((__m512i)high[r], each, w1);
    }
  }
  LC_UNROLLED
  for (int r = 0; r < kCount; ++r) {
    _mm512_store_si512(sums + r * kOutputs, (__m512i)low[r]);
    _mm512_store_si512(sums + r * kOutputs + kLanes, (__m512i)high[r]);
  }
}
#endif

template <int kCount>
LC_INLINE void multiply_rows(bool vnni, const uint8_t* x, int64_t row_bytes, const int8_t* weights,
                             int64_t quads, const int32_t* compensation, int32_t* sums) {
#if defined(__AVX512F__)
  if (vnni) return multiply_vnni<kCount>(x, row_bytes, weights, quads, compensation, sums);
#endif
  multiply_plain<kCount>(x, row_bytes, weights, quads, compensation, sums);
}

// A vector of sums, converted to float.
LC_INLINE Vec load_sums(const int32_t* sums) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_load_si512(sums));
#else
  alignas(64) float converted[kLanes];
  for (int i = 0; i < kLanes; ++i) converted[i] = static_cast<float>(sums[i]);
  return load(converted);
#endif
}

}  // namespace LC_ISA
}  // namespace lc
