// Loads of rows of float32 or bfloat16.
#pragma once
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

LC_INLINE Vec load_as_floats(const float* p) { return load_unaligned(p); }
LC_INLINE Vec load_as_floats(const uint16_t* p) { return load_wide(p); }

// Floats [from, from + kLanes) of a row of `count`, zeros past its end.
LC_INLINE Vec load_row(const char* row, bool bf16, int64_t from, int64_t count) {
  if (from + kLanes <= count)
    return bf16 ? load_wide(reinterpret_cast<const uint16_t*>(row) + from)
                : load_unaligned(reinterpret_cast<const float*>(row) + from);
  if (from >= count) return splat(0.f);
  const size_t left = static_cast<size_t>(count - from);
  if (bf16) {
    uint16_t some[kLanes] = {};
    memcpy(some, reinterpret_cast<const uint16_t*>(row) + from, left * sizeof some[0]);
    return load_wide(some);
  }
  float some[kLanes] = {};
  memcpy(some, reinterpret_cast<const float*>(row) + from, left * sizeof some[0]);
  return load_unaligned(some);
}

}  // namespace LC_ISA
}  // namespace lc
