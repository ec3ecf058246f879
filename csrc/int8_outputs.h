// Outputs of a layer in 8 bits, from rows that are rounded.
#pragma once
#include "int8_layer.h"
#include "int8_product.h"

namespace lc {
namespace LC_ISA {

// x Φ(x) to 2 parts in 10^4 of 1, a hundredth of what rounding to 8 bits costs: x/2 + |x| c q(c²)
// for c = min(|x|, 4), the minimax fit that ends at c q(c²) = 1/2.
LC_INLINE Vec rough_gelu(Vec x) {
  const Vec top = splat(4.f), a = absolute(x), c = sub(top, max(splat(0.f), sub(top, a)));
  const Vec square = mul(c, c);
  Vec q = splat(2.25882744e-08f);
  q = fma(q, square, splat(-1.58883029e-06f));
  q = fma(q, square, splat(4.77639442e-05f));
  q = fma(q, square, splat(-8.12187965e-04f));
  q = fma(q, square, splat(8.76369327e-03f));
  q = fma(q, square, splat(-6.45544156e-02f));
  q = fma(q, square, splat(3.97870272e-01f));
  return fma(mul(a, c), q, mul(x, splat(0.5f)));
}

template <Activation kActivation>
LC_INLINE Vec activated(Vec x) {
  return kActivation == Activation::gelu ? rough_gelu(x) : activate(kActivation, x);
}

// Outputs of kCount rows and a block.
template <int kCount, Activation kActivation, class Emit>
LC_INLINE void outputs_of_rows(const Int8Layer& layer, bool dots, const uint8_t* x,
                               const float* worth, int64_t block, int64_t row, const Emit& emit) {
  const int64_t at = block * kOutputs;
  const float *steps = layer.steps + at, *bias = layer.bias + at;
  const auto take = [&](int r, int half, Vec whole) {
    const int64_t c = half * kLanes;
    if (at + c >= layer.outputs) return;
    const Vec scaled = mul(whole, load_unaligned(steps + c));
    const Vec sum = fma(scaled, splat(worth[row + r]), load_unaligned(bias + c));
    emit(row + r, at + c, activated<kActivation>(sum));
  };
  multiply_rows<kCount>(dots, x + row * layer.row_bytes(), layer.row_bytes(),
                        layer.weights + block * layer.block_bytes(), layer.quads(),
                        layer.begin + at, take);
}

template <Activation kActivation, class Emit>
void run_activated(const Int8Layer& layer, bool dots, const uint8_t* x, const float* worth,
                   int64_t rows, const Emit& emit) {
  for (int64_t block = 0; block < layer.blocks(); ++block)
    for (int64_t r = 0; r < rows;) {
      if (rows - r >= kRowsAtOnce) {
        outputs_of_rows<kRowsAtOnce, kActivation>(layer, dots, x, worth, block, r, emit);
        r += kRowsAtOnce;
      } else if (rows - r >= 4) {
        outputs_of_rows<4, kActivation>(layer, dots, x, worth, block, r, emit);
        r += 4;
      } else {
        outputs_of_rows<1, kActivation>(layer, dots, x, worth, block, r, emit);
        r += 1;
      }
    }
}

// Outputs of rounded rows `x`, a step of each worth `worth`; emit(row, output, values) takes a
// vector of them.
template <class Emit>
LC_INLINE void run_layer(const Int8Layer& layer, bool dots, const uint8_t* x, const float* worth,
                         int64_t rows, const Emit& emit) {
  switch (layer.activation) {
    case Activation::relu:
      return run_activated<Activation::relu>(layer, dots, x, worth, rows, emit);
    case Activation::relu6:
      return run_activated<Activation::relu6>(layer, dots, x, worth, rows, emit);
    case Activation::gelu:
      return run_activated<Activation::gelu>(layer, dots, x, worth, rows, emit);
    default: return run_activated<Activation::none>(layer, dots, x, worth, rows, emit);
  }
}

LC_INLINE int64_t lanes_left(int64_t outputs, int64_t from) {
  return outputs - from < kLanes ? outputs - from : kLanes;
}

}  // namespace LC_ISA
}  // namespace lc
