// Numbers rounded to 8 bits, and products of rows of them with a block of outputs' weights.
//
// Processors multiply unsigned numbers by signed ones, four pairs to a sum, so what lies in a row
// is stored moved up by 128: sums begin at −128 Σ w of their output.
#pragma once
#include "simd/activate.h"
#include "simd/rows_in.h"
#include "simd/simd.h"

// Part of avx512_bf16, and of most processors that have avx512: asked for where it is used.
#if defined(__AVX512F__) && defined(__GNUC__)
#define LC_HAS_DOTS
#define LC_DOTS __attribute__((target("avx512vnni")))
// The same for all functions between the two.
#if defined(__clang__)
#define LC_BEGIN_DOTS \
  _Pragma("clang attribute push(__attribute__((target(\"avx512vnni\"))), apply_to = function)")
#define LC_END_DOTS _Pragma("clang attribute pop")
#else
#define LC_BEGIN_DOTS _Pragma("GCC push_options") _Pragma("GCC target(\"avx512vnni\")")
#define LC_END_DOTS _Pragma("GCC pop_options")
#endif
#else
#define LC_DOTS
#endif

namespace lc {
namespace LC_ISA {

constexpr int kUp = 128;
constexpr int kOutputs = 2 * kLanes;  // of a block
// Rows that meet a block of outputs at once: their sums fill the registers.
constexpr int kRowsAtOnce = 12;
// Rows whose largest number is smaller count as zeros.
constexpr float kNothing = 1e-30f;

#if defined(__AVX512F__)
// As whole numbers, bits of magnitudes are ordered like these, and what is not finite comes last.
LC_INLINE Vec larger_magnitude(Vec most, Vec x) {
  const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7FFFFFFF));
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(most), bits));
}
LC_INLINE float largest_lane(Vec magnitudes) {
  const int32_t bits = _mm512_reduce_max_epi32(_mm512_castps_si512(magnitudes));
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
// The largest lanes of 16 vectors of magnitudes.
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
LC_INLINE Vec larger_magnitude(Vec most, Vec x) { return larger(most, absolute(x)); }
LC_INLINE float largest_lane(Vec magnitudes) {
  alignas(64) float lanes[kLanes];
  store(lanes, magnitudes);
  float most = lanes[0];
  for (int i = 1; i < kLanes; ++i) most = lanes[i] > most || lanes[i] != lanes[i] ? lanes[i] : most;
  return most;
}
LC_INLINE void largest_lanes(const Vec (&magnitudes)[16], float* out) {
  for (int i = 0; i < 16; ++i) out[i] = largest_lane(magnitudes[i]);
}
#endif

// How numbers become whole ones from −127 to 127.
struct Step {
  float per_one;
  float worth;  // NaN if a number is not finite
};

// Steps for a vector of largest numbers.
LC_INLINE void steps_for(Vec largest, float* per_one, float* worth) {
  store(per_one, keep(div(splat(127.f), largest), largest, splat(kNothing)));
  store(worth, add(mul(largest, splat(1.f / 127.f)), mul(largest, splat(0.f))));
}

LC_INLINE Step step_for(float largest) {
  alignas(64) float per_one[kLanes], worth[kLanes];
  steps_for(splat(largest), per_one, worth);
  return {per_one[0], worth[0]};
}

// Rounds to whole numbers from −127 to 127. Others are among numbers that are not finite: what
// becomes of them does not matter.
LC_INLINE void store_whole(int8_t* at, Vec x) {
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

// The same, moved up.
LC_INLINE void store_moved_up(uint8_t* at, const Vec& x) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x));
  const __m128i moved = _mm_xor_si128(bytes, _mm_set1_epi8(static_cast<char>(kUp)));
  memcpy(at, &moved, sizeof moved);
#else
  int8_t whole[kLanes];
  store_whole(whole, x);
  for (int i = 0; i < kLanes; ++i) at[i] = static_cast<uint8_t>(whole[i] + kUp);
#endif
}

// The same of values(0) .. values(count − 1), a vector of which is at values(i).
template <class Values>
LC_INLINE void store_row_moved_up(uint8_t* at, int64_t count, const Values& values) {
  int64_t i = 0;
#if defined(__AVX512F__)
  // Four vectors packed at once take a third of the instructions of one after the other.
  const __m512i up = _mm512_set1_epi8(static_cast<char>(kUp));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    const auto whole = [&](int v) { return _mm512_cvtps_epi32(values(i + v * kLanes)); };
    const __m512i low = _mm512_packs_epi32(whole(0), whole(1));
    const __m512i high = _mm512_packs_epi32(whole(2), whole(3));
    const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
    _mm512_storeu_si512(at + i, _mm512_xor_si512(bytes, up));
  }
#endif
  for (; i < count; i += kLanes) store_moved_up(at + i, values(i));
}

// The magnitudes `most` and those of a row, whichever are larger.
LC_INLINE Vec larger_of_row(Vec most, const char* row, bool bits16, int64_t count) {
  int64_t i = 0;
#if defined(__AVX512F__)
  // Bits of bfloat16 are ordered like floats' too.
  if (bits16) {
    __m512i bits = _mm512_setzero_si512();
    for (; i + 2 * kLanes <= count; i += 2 * kLanes)
      bits = _mm512_max_epu16(
          bits, _mm512_and_si512(_mm512_loadu_si512(row + i * 2), _mm512_set1_epi16(0x7FFF)));
    const __m512i even = _mm512_slli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFF0000));
    most = larger_magnitude(most, _mm512_castsi512_ps(_mm512_max_epi32(even, odd)));
  }
#endif
  for (; i < count; i += kLanes) most = larger_magnitude(most, load_row(row, bits16, i, count));
  return most;
}

LC_INLINE Step step_of_row(const char* row, bool bits16, int64_t count) {
  return step_for(largest_lane(larger_of_row(splat(0.f), row, bits16, count)));
}

// Rounds a row to steps, a whole vector at its end.
LC_INLINE void round_row(const char* row, bool bits16, int64_t count, const Step& step,
                         uint8_t* out) {
  const Vec per_one = splat(step.per_one);
  const auto round_as = [&](bool narrow) {
    store_row_moved_up(out, count,
                       [&](int64_t i) { return mul(load_row(row, narrow, i, count), per_one); });
  };
  bits16 ? round_as(true) : round_as(false);
}

// Σ w · x of kCount rows and a block of outputs, whose weights are [quad][output][4], into
// [row][output]. What `begin` gives is −128 Σ w of the outputs.
template <int kCount>
static void multiply_bytes(const uint8_t* x, int64_t row_bytes, const int8_t* weights,
                           int64_t quads, const int32_t* begin, int32_t* sums) {
  for (int i = 0; i < kCount * kOutputs; ++i) sums[i] = begin[i % kOutputs];
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

// The same, four products at a time; the sums stay in the registers until they are done.
template <int kCount>
LC_DOTS static void multiply_by_dots(const uint8_t* x, int64_t row_bytes, const int8_t* weights,
                                     int64_t quads, const int32_t* begin, int32_t* sums) {
  Ints low[kCount], high[kCount];
  const __m512i begin0 = _mm512_loadu_si512(begin), begin1 = _mm512_loadu_si512(begin + kLanes);
  LC_UNROLLED
  for (int r = 0; r < kCount; ++r) low[r] = (Ints)begin0, high[r] = (Ints)begin1;
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
LC_INLINE void multiply_rows(bool dots, const uint8_t* x, int64_t row_bytes, const int8_t* weights,
                             int64_t quads, const int32_t* begin, int32_t* sums) {
#if defined(__AVX512F__)
  if (dots) return multiply_by_dots<kCount>(x, row_bytes, weights, quads, begin, sums);
#endif
  multiply_bytes<kCount>(x, row_bytes, weights, quads, begin, sums);
}

// A vector of sums as floats.
LC_INLINE Vec load_sums(const int32_t* sums) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_load_si512(sums));
#else
  alignas(64) float whole[kLanes];
  for (int i = 0; i < kLanes; ++i) whole[i] = static_cast<float>(sums[i]);
  return load(whole);
#endif
}

}  // namespace LC_ISA
}  // namespace lc
