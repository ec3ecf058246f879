// One vector of floats, as wide as the instruction set this file is compiled for (LC_ISA).
//
// Kernels are written once against `Vec` and compiled once per instruction set. They use no
// standard containers: an inline function compiled for AVX-512 must never be the copy that the
// linker keeps for all processors. Everything here is in the namespace of the ISA; setup.py checks
// it.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "simd/log2e.h"

#if defined(__AVX2__) || defined(__AVX512F__) || defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

#if defined(_MSC_VER)
#define LC_INLINE static __forceinline
#else
#define LC_INLINE static inline __attribute__((always_inline))
#endif

// For loops over registers, which a loop that is not unrolled keeps in memory.
#if defined(__GNUC__)
#define LC_UNROLLED _Pragma("GCC unroll 16")
#else
#define LC_UNROLLED
#endif

namespace lc {
namespace LC_ISA {

// Asks for a cache line, which may lie outside of what is allocated.
LC_INLINE void prefetch_to_read(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0);
#else
  (void)p;
#endif
}
LC_INLINE void prefetch_to_write(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 1);
#else
  (void)p;
#endif
}

// The float of the bits of a bfloat16; a float stays itself.
LC_INLINE float widen(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  memcpy(&x, &wide, sizeof x);
  return x;
}
LC_INLINE float widen(float x) { return x; }

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using Vec = __m512;
using Mask = __mmask16;

LC_INLINE Vec splat(float x) { return _mm512_set1_ps(x); }
LC_INLINE Vec load(const float* p) { return _mm512_load_ps(p); }
LC_INLINE Vec load_unaligned(const float* p) { return _mm512_loadu_ps(p); }
LC_INLINE void store(float* p, Vec x) { _mm512_store_ps(p, x); }
LC_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
LC_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
LC_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
LC_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// Returns the second operand where either is NaN: max(a, x) keeps a NaN in x.
LC_INLINE Vec max(Vec a, Vec x) { return _mm512_max_ps(a, x); }
// The larger; the first of equals, and x where it is NaN.
LC_INLINE Vec larger(Vec a, Vec x) {
  return _mm512_mask_mov_ps(max(x, a), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}
LC_INLINE Vec sqrt(Vec x) { return _mm512_sqrt_ps(x); }
LC_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
// Four weights at `p` (any alignment), each in all lanes: one load, then shuffles, which are
// cheaper than loads.
LC_INLINE void splat4(const float* p, Vec& a, Vec& b, Vec& c, Vec& d) {
  const __m512 quad = _mm512_broadcast_f32x4(_mm_loadu_ps(p));
  a = _mm512_permute_ps(quad, 0x00);
  b = _mm512_permute_ps(quad, 0x55);
  c = _mm512_permute_ps(quad, 0xAA);
  d = _mm512_permute_ps(quad, 0xFF);
}
// 2^floor(n) · p; saturates to 0 and infinity.
LC_INLINE Vec scale(Vec p, Vec n) { return _mm512_scalef_ps(p, n); }
LC_INLINE Vec round(Vec x) { return _mm512_roundscale_ps(x, 0); }
// x where bit i of `lanes` is set, else y.
LC_INLINE Vec select(uint32_t lanes, Vec x, Vec y) {
  return _mm512_mask_blend_ps(static_cast<Mask>(lanes), y, x);
}

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using Vec = __m256;

LC_INLINE Vec splat(float x) { return _mm256_set1_ps(x); }
LC_INLINE Vec load(const float* p) { return _mm256_load_ps(p); }
LC_INLINE Vec load_unaligned(const float* p) { return _mm256_loadu_ps(p); }
LC_INLINE void store(float* p, Vec x) { _mm256_store_ps(p, x); }
LC_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
LC_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
LC_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
LC_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
LC_INLINE Vec max(Vec a, Vec x) { return _mm256_max_ps(a, x); }
LC_INLINE Vec larger(Vec a, Vec x) {
  return _mm256_blendv_ps(max(x, a), x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}
LC_INLINE Vec sqrt(Vec x) { return _mm256_sqrt_ps(x); }
LC_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
LC_INLINE void splat4(const float* p, Vec& a, Vec& b, Vec& c, Vec& d) {
  const __m256 quad = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
  a = _mm256_permute_ps(quad, 0x00);
  b = _mm256_permute_ps(quad, 0x55);
  c = _mm256_permute_ps(quad, 0xAA);
  d = _mm256_permute_ps(quad, 0xFF);
}
LC_INLINE Vec round(Vec x) { return _mm256_round_ps(x, 0x08); }
LC_INLINE Vec scale(Vec p, Vec n) {
  // Two halves, so that a result outside the normal range becomes 0 or infinity, as scalef does.
  const __m256 bounded =
      _mm256_max_ps(_mm256_set1_ps(-252.f), _mm256_min_ps(_mm256_set1_ps(254.f), n));
  const __m256i whole = _mm256_cvtps_epi32(bounded);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 low = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 high = _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(p, low), high);
}
LC_INLINE Vec select(uint32_t lanes, Vec x, Vec y) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i on =
      _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(lanes)), bit), bit);
  return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(on));
}

#else

// The floor of every platform: four plain floats, which compilers turn into SSE2 or NEON.
constexpr int kLanes = 4;
#if defined(__GNUC__)
using Four = float __attribute__((vector_size(16)));
#define LC_BOTH(OP) \
  return { a.v OP b.v }
#else
using Four = float[4];
#define LC_BOTH(OP) LC_EACH(a.v[i] OP b.v[i])
#endif
struct alignas(16) Vec {
  Four v;
};
#define LC_EACH(EXPR)                          \
  Vec r;                                       \
  for (int i = 0; i < 4; ++i) r.v[i] = (EXPR); \
  return r
LC_INLINE Vec splat(float x) { LC_EACH(x); }
LC_INLINE Vec load(const float* p) { LC_EACH(p[i]); }
LC_INLINE Vec load_unaligned(const float* p) { LC_EACH(p[i]); }
LC_INLINE void store(float* p, Vec x) {
  for (int i = 0; i < 4; ++i) p[i] = x.v[i];
}
LC_INLINE Vec add(Vec a, Vec b) { LC_BOTH(+); }
LC_INLINE Vec sub(Vec a, Vec b) { LC_BOTH(-); }
LC_INLINE Vec mul(Vec a, Vec b) { LC_BOTH(*); }
LC_INLINE Vec fma(Vec a, Vec b, Vec c) { return add(mul(a, b), c); }
LC_INLINE Vec max(Vec a, Vec x) { LC_EACH(a.v[i] > x.v[i] ? a.v[i] : x.v[i]); }
LC_INLINE Vec larger(Vec a, Vec x) {
  LC_EACH(x.v[i] > a.v[i] || x.v[i] != x.v[i] ? x.v[i] : a.v[i]);
}
LC_INLINE Vec sqrt(Vec x) { LC_EACH(sqrtf(x.v[i])); }
LC_INLINE Vec div(Vec a, Vec b) { LC_EACH(a.v[i] / b.v[i]); }
LC_INLINE void splat4(const float* p, Vec& a, Vec& b, Vec& c, Vec& d) {
  a = splat(p[0]);
  b = splat(p[1]);
  c = splat(p[2]);
  d = splat(p[3]);
}
LC_INLINE float round_one(float x) {
  // Adding 1.5 · 2^23 leaves no bits for a fraction; larger numbers have none to begin with.
  const float magic = 12582912.f;
  return x > 4194304.f || x < -4194304.f ? x : (x + magic) - magic;
}
LC_INLINE Vec round(Vec x) { LC_EACH(round_one(x.v[i])); }
LC_INLINE float power_of_two(int n) {
  const uint32_t bits = static_cast<uint32_t>(n + 127) << 23;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
LC_INLINE float scale_one(float p, float n) {
  const float bounded = n < -252.f ? -252.f : (n < 254.f ? n : 254.f);
  const int whole = static_cast<int>(bounded), half = whole >> 1;
  return p * power_of_two(half) * power_of_two(whole - half);
}
LC_INLINE Vec scale(Vec p, Vec n) { LC_EACH(scale_one(p.v[i], n.v[i])); }
LC_INLINE Vec select(uint32_t lanes, Vec x, Vec y) { LC_EACH((lanes >> i) & 1 ? x.v[i] : y.v[i]); }
#undef LC_BOTH
#undef LC_EACH

#endif

#if defined(__AVX512F__)

// 2^(j/32). Two registers hold them all.
alignas(64) constexpr float kPowers[32] = {
    1.f,         1.0218972f,  1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f,  1.13878858f,
    1.1637249f,  1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f,
    1.35425556f, 1.38390994f, 1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f,
    1.5759809f,  1.61049032f, 1.64575553f, 1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f,
    1.8340081f,  1.87416768f, 1.91520655f, 1.95714414f,
};

// 2^n · 2^f for `shifted` = the magic number + n, n a multiple of 1/32: 2^n from the tables, and
// 2^f is 1 + c1·f + c2·f² to 6 parts in 10^8 (minimax with the constant fixed to 1, so that 2^0 is
// exactly 1 and a fully masked head gives exactly 1/C). A quarter cheaper than one polynomial.
constexpr float kMagic = 393216.f;  // 1.5 · 2^18: its last bit is worth 1/32
LC_INLINE Vec table_entry(Vec shifted) {
  return _mm512_permutex2var_ps(load(kPowers), _mm512_castps_si512(shifted), load(kPowers + 16));
}
LC_INLINE Vec slope(Vec f) { return fma(f, splat(0.240226507f), splat(0.693157344f)); }
LC_INLINE Vec table_power(Vec shifted, Vec n, Vec f) {
  const Vec power = table_entry(shifted);
  return scale(fma(mul(slope(f), f), power, power), n);
}
// sum + 2^n · 2^f, an instruction shorter than the two one after the other.
LC_INLINE Vec add_table_power(Vec sum, Vec shifted, Vec n, Vec f) {
  return fma(fma(slope(f), f, splat(1.f)), scale(table_entry(shifted), n), sum);
}

// 2^t to 1 part in 10^7.
LC_INLINE Vec exp2(Vec t) {
  const Vec shifted = add(t, splat(kMagic));
  const Vec n = sub(shifted, splat(kMagic));
  return table_power(shifted, n, sub(t, n));
}

LC_INLINE Vec add_exp2(Vec sum, Vec t) {
  const Vec shifted = add(t, splat(kMagic));
  const Vec n = sub(shifted, splat(kMagic));
  return add_table_power(sum, shifted, n, sub(t, n));
}

// sum + e^x, as 2^(x · log2 e) without a rounding of that.
LC_INLINE Vec add_exp(Vec sum, Vec x) {
  const Vec shifted = fma(x, splat(kLog2E), splat(kMagic));
  const Vec n = sub(shifted, splat(kMagic));
  return add_table_power(sum, shifted, n, _mm512_fmsub_ps(x, splat(kLog2E), n));
}

#else

// 2^t to 1 part in 10^7. The polynomial is the degree-5 minimax fit of 2^f on [-1/2, 1/2] with its
// constant fixed to 1, so that 2^0 is exactly 1 and a fully masked head gives exactly 1/C.
LC_INLINE Vec exp2(Vec t) {
  const Vec n = round(t);
  const Vec f = sub(t, n);
  Vec p = splat(1.326472720e-03f);
  p = fma(p, f, splat(9.671512640e-03f));
  p = fma(p, f, splat(5.550733743e-02f));
  p = fma(p, f, splat(2.402224209e-01f));
  p = fma(p, f, splat(6.931469776e-01f));
  return scale(fma(p, f, splat(1.f)), n);
}
LC_INLINE Vec add_exp2(Vec sum, Vec t) { return add(sum, exp2(t)); }

#endif

#if defined(__AVX512F__)
LC_INLINE void store_unaligned(float* p, Vec x) { _mm512_storeu_ps(p, x); }
// x where a >= b, else 0.
LC_INLINE Vec keep(Vec x, Vec a, Vec b) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), x);
}
// A square of kLanes vectors, rows to columns.
LC_INLINE void transpose(Vec (&rows)[kLanes]) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm512_castpd_ps(
          _mm512_unpacklo_pd(_mm512_castps_pd(a[i + j]), _mm512_castps_pd(a[i + j + 2])));
      b[i + 2 * j + 1] = _mm512_castpd_ps(
          _mm512_unpackhi_pd(_mm512_castps_pd(a[i + j]), _mm512_castps_pd(a[i + j + 2])));
    }
  // Quarter q of b[4g + j] holds column 4q + j of the rows 4g .. 4g + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512 low01 = _mm512_shuffle_f32x4(b[j], b[j + 4], 0x44);
    const __m512 high01 = _mm512_shuffle_f32x4(b[j], b[j + 4], 0xEE);
    const __m512 low23 = _mm512_shuffle_f32x4(b[j + 8], b[j + 12], 0x44);
    const __m512 high23 = _mm512_shuffle_f32x4(b[j + 8], b[j + 12], 0xEE);
    rows[j] = _mm512_shuffle_f32x4(low01, low23, 0x88);
    rows[j + 4] = _mm512_shuffle_f32x4(low01, low23, 0xDD);
    rows[j + 8] = _mm512_shuffle_f32x4(high01, high23, 0x88);
    rows[j + 12] = _mm512_shuffle_f32x4(high01, high23, 0xDD);
  }
}
// A vector of bfloat16 as floats.
LC_INLINE Vec load_wide(const uint16_t* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
// Stores floats that are exact in bfloat16.
LC_INLINE void store_upper(uint16_t* p, Vec x) {
  const __m512i upper = _mm512_srli_epi32(_mm512_castps_si512(x), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(upper));
}
#elif defined(__AVX2__)
LC_INLINE void store_unaligned(float* p, Vec x) { _mm256_storeu_ps(p, x); }
LC_INLINE Vec keep(Vec x, Vec a, Vec b) {
  return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ), x);
}
LC_INLINE void transpose(Vec (&rows)[kLanes]) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
      b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xEE);
    }
  // Half h of b[4g + j] holds column 4h + j of the rows 4g .. 4g + 3.
  for (int j = 0; j < 4; ++j) {
    rows[j] = _mm256_permute2f128_ps(b[j], b[j + 4], 0x20);
    rows[j + 4] = _mm256_permute2f128_ps(b[j], b[j + 4], 0x31);
  }
}
LC_INLINE Vec load_wide(const uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
LC_INLINE void store_upper(uint16_t* p, Vec x) {
  const __m256i upper = _mm256_srli_epi32(_mm256_castps_si256(x), 16);
  const __m128i low = _mm256_castsi256_si128(upper), high = _mm256_extracti128_si256(upper, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(low, high));
}
#else
LC_INLINE void store_unaligned(float* p, Vec x) { memcpy(p, &x.v, sizeof x.v); }
LC_INLINE Vec keep(Vec x, Vec a, Vec b) {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = a.v[i] >= b.v[i] ? x.v[i] : 0.f;
  return r;
}
LC_INLINE void transpose(Vec (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < i; ++j) {
      const float x = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i];
      rows[j].v[i] = x;
    }
}
LC_INLINE Vec load_wide(const uint16_t* p) {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = widen(p[i]);
  return r;
}
LC_INLINE void store_upper(uint16_t* p, Vec x) {
  for (int i = 0; i < kLanes; ++i) {
    const float one = x.v[i];
    uint32_t bits;
    memcpy(&bits, &one, sizeof bits);
    p[i] = static_cast<uint16_t>(bits >> 16);
  }
}
#endif

// A row-major block of features, widened to float and laid out as [dim][lane], square by square in
// registers; rows past the end of the batch become zeros. `bf16`: whether the rows are bfloat16.
LC_INLINE void load_tile(const void* rows, bool bf16, int64_t row, int64_t rows_end, int64_t dims,
                         float* tile) {
  const int64_t whole = rows_end - row < kLanes ? 0 : dims / kLanes * kLanes;
  const float* wide = static_cast<const float*>(rows) + row * dims;
  const uint16_t* narrow = static_cast<const uint16_t*>(rows) + row * dims;
  for (int64_t d = 0; d < whole; d += kLanes) {
    Vec square[kLanes];
    for (int i = 0; i < kLanes; ++i)
      square[i] = bf16 ? load_wide(narrow + i * dims + d) : load_unaligned(wide + i * dims + d);
    transpose(square);
    for (int i = 0; i < kLanes; ++i) store(tile + (d + i) * kLanes, square[i]);
  }
  for (int64_t d = whole; d < dims; ++d)
    for (int64_t i = 0; i < kLanes; ++i) {
      float x = 0.f;
      if (row + i < rows_end) x = bf16 ? widen(narrow[i * dims + d]) : wide[i * dims + d];
      tile[d * kLanes + i] = x;
    }
}

}  // namespace LC_ISA
}  // namespace lc
