// 2^t for probabilities that are rounded to bfloat16 or uint8.
#pragma once
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

// To a relative error of 1e-4. 2^f on [0, 1) is the cubic minimax fit with its constant fixed to 1.
LC_INLINE Vec approximate_exp2(Vec t) {
#if defined(__AVX512F__)
  const Vec f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF);
  Vec p = fma(splat(7.706704e-02f), f, splat(2.2764500e-01f));
  p = fma(p, f, splat(6.9511676e-01f));
  return scale(fma(p, f, splat(1.f)), t);
#else
  return exp2(t);
#endif
}

}  // namespace LC_ISA
}  // namespace lc
