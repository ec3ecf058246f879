// Stores of rows of outputs in float32 or bfloat16.
#pragma once
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

// To the nearest bfloat16, ties to even, as torch rounds.
LC_INLINE uint16_t narrow(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(x == x ? rounded : 0x7FC0u);
}

// Writes the first `some` lanes to outputs [at, at + some) of a row.
LC_INLINE void write_row(void* out, bool bf16, int64_t at, Vec x, int64_t some) {
  alignas(64) float one[kLanes];
  if (bf16) {
    uint16_t* narrowed = static_cast<uint16_t*>(out) + at;
#if defined(__AVX512BF16__)
    const __m256bh bits = _mm512_cvtneps_pbh(x);
    if (some == kLanes) {
      memcpy(narrowed, &bits, sizeof bits);
      return;
    }
#endif
    store(one, x);
    if (some == kLanes)
      for (int i = 0; i < kLanes; ++i) narrowed[i] = narrow(one[i]);
    else
      for (int64_t i = 0; i < some; ++i) narrowed[i] = narrow(one[i]);
    return;
  }
  float* wide = static_cast<float*>(out) + at;
  if (some == kLanes) return store_unaligned(wide, x);
  store(one, x);
  memcpy(wide, one, static_cast<size_t>(some) * sizeof(float));
}

}  // namespace LC_ISA
}  // namespace lc
