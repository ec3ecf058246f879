// Outputs of a layer in 8 bits, from rows that are rounded.
#pragma once
#include "common/int8_layer.h"
#include "common/int8_product.h"
#include "simd/rows_out.h"

namespace lc {
namespace LC_ISA {

// x Φ(x) to 2 parts in 10^4 of 1, a hundredth of what rounding to 8 bits costs: x/2 + |x| c q(c²)
// for c = min(|x|, 4), the minimax fit that ends at c q(c²) = 1/2.
LC_INLINE Vec rough_gelu(Vec x) {
  const Vec a = absolute(x), c = min(splat(4.f), a), square = mul(c, c);
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

// Where rows of outputs go.
struct RowsOut {
  void* data;
  bool bits16;
  int64_t first;      // row of `data` that row 0 is
  const void* added;  // to the outputs: rows like `data`, which may be `data`; or null
};

// Writes a block of outputs of `count` rows from `row` on, whose sums are [row][output].
template <Activation kActivation, bool kBits16>
static void write_block(const Int8Layer& layer, int64_t block, const int32_t* sums,
                        const float* worth, int64_t row, int64_t count, const RowsOut& out) {
  constexpr int64_t kElement = kBits16 ? 2 : 4;
  const int64_t outputs = layer.outputs;
  for (int half = 0; half < 2; ++half, sums += kLanes) {
    const int64_t from = block * kOutputs + half * kLanes;
    if (from >= outputs) return;
    const Vec steps = load_unaligned(layer.steps + from), bias = load_unaligned(layer.bias + from);
    const int64_t at = (out.first + row) * outputs + from, left = outputs - from;
    const auto write = [&](int64_t r, int64_t some) {
      const Vec scaled = mul(load_sums(sums + r * kOutputs), steps);
      Vec x = activated<kActivation>(fma(scaled, splat(worth[row + r]), bias));
      if (out.added != nullptr)
        x = add(x, load_row(static_cast<const char*>(out.added) + (at + r * outputs) * kElement,
                            kBits16, 0, some));
      write_row(out.data, kBits16, at + r * outputs, x, some);
    };
    if (left >= kLanes)
      for (int64_t r = 0; r < count; ++r) write(r, kLanes);
    else
      for (int64_t r = 0; r < count; ++r) write(r, left);
  }
}

template <int kCount, Activation kActivation>
LC_INLINE void run_rows(const Int8Layer& layer, bool dots, const uint8_t* x, const float* worth,
                        int64_t block, int64_t row, const RowsOut& out) {
  alignas(64) int32_t sums[kCount * kOutputs];
  multiply_rows<kCount>(dots, x + row * layer.row_bytes(), layer.row_bytes(),
                        layer.weights + block * layer.block_bytes(), layer.quads(),
                        layer.begin + block * kOutputs, sums);
  if (out.bits16)
    write_block<kActivation, true>(layer, block, sums, worth, row, kCount, out);
  else
    write_block<kActivation, false>(layer, block, sums, worth, row, kCount, out);
}

template <Activation kActivation>
static void run_activated(const Int8Layer& layer, bool dots, const uint8_t* x, const float* worth,
                          int64_t rows, const RowsOut& out) {
  for (int64_t block = 0; block < layer.blocks(); ++block)
    for (int64_t r = 0; r < rows;) {
      if (rows - r >= kRowsAtOnce) {
        run_rows<kRowsAtOnce, kActivation>(layer, dots, x, worth, block, r, out);
        r += kRowsAtOnce;
      } else if (rows - r >= 4) {
        run_rows<4, kActivation>(layer, dots, x, worth, block, r, out);
        r += 4;
      } else {
        run_rows<1, kActivation>(layer, dots, x, worth, block, r, out);
        r += 1;
      }
    }
}

// Outputs of rounded rows `x`, a step of each worth `worth`.
LC_INLINE void run_layer(const Int8Layer& layer, bool dots, const uint8_t* x, const float* worth,
                         int64_t rows, const RowsOut& out) {
  switch (layer.activation) {
    case Activation::relu: return run_activated<Activation::relu>(layer, dots, x, worth, rows, out);
    case Activation::relu6:
      return run_activated<Activation::relu6>(layer, dots, x, worth, rows, out);
    case Activation::gelu: return run_activated<Activation::gelu>(layer, dots, x, worth, rows, out);
    default: return run_activated<Activation::none>(layer, dots, x, worth, rows, out);
  }
}

}  // namespace LC_ISA
}  // namespace lc
