// The activations of a layer, on a vector.
#pragma once
#include "common/layer_activation.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

LC_INLINE Vec negated(Vec x) { return sub(splat(0.f), x); }
#if defined(__AVX512F__)
LC_INLINE Vec absolute(Vec x) { return _mm512_abs_ps(x); }
// Returns the second operand where either is NaN.
LC_INLINE Vec min(Vec a, Vec x) { return _mm512_min_ps(a, x); }
#else
LC_INLINE Vec absolute(Vec x) { return max(negated(x), x); }
LC_INLINE Vec min(Vec a, Vec x) { return negated(max(negated(a), negated(x))); }
#endif

// x Φ(x) = max(x, 0) − |x| Φ(−|x|), without cancellation. Φ(−|x|) by formula 7.1.26 of Abramowitz
// and Stegun, to an absolute error of 1e-7.
LC_INLINE Vec gelu(Vec x) {
  const Vec a = absolute(x);
  const Vec t = div(splat(1.f), fma(splat(0.3275911f * 0.70710678f), a, splat(1.f)));
  Vec p = splat(0.5f * 1.061405429f);
  p = fma(p, t, splat(0.5f * -1.453152027f));
  p = fma(p, t, splat(0.5f * 1.421413741f));
  p = fma(p, t, splat(0.5f * -0.284496736f));
  p = fma(p, t, splat(0.5f * 0.254829592f));
  const Vec power = max(splat(-200.f), mul(mul(a, a), splat(-0.5f * kLog2E)));
  return sub(max(splat(0.f), x), mul(mul(a, mul(p, t)), exp2(power)));
}

LC_INLINE Vec activate(Activation activation, Vec x) {
  if (activation == Activation::none) return x;
  if (activation == Activation::gelu) return gelu(x);
  const Vec positive = max(splat(0.f), x);
  if (activation == Activation::relu) return positive;
  return min(splat(6.f), positive);
}

}  // namespace LC_ISA
}  // namespace lc
