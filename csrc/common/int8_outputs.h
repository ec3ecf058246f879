// Outputs of an int8 layer, from quantized rows.
#pragma once
#include "common/int8_layer.h"
#include "common/int8_product.h"
#include "simd/rows_out.h"

namespace lc {
namespace LC_ISA {

// x Φ(x) with an absolute error of 2e-4, 1 % of what int8 rounding costs: x/2 + |x| c q(c²) for
// c = min(|x|, 4), the minimax fit with c q(c²) = 1/2 at the end.
LC_INLINE Vec approximate_gelu(Vec x) {
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
  return kActivation == Activation::gelu ? approximate_gelu(x) : activate(kActivation, x);
}

// Where rows of outputs go.
struct RowsOut {
  void* data;
  bool bf16;
  int64_t first;      // row of `data` where row 0 goes
  const void* added;  // to the outputs: rows like `data`, which may be `data`; or null
};

// Writes a block of outputs of rows [row, row + count), whose sums are [row][output].
template <Activation kActivation, bool kBf16>
static void write_block(const Int8Layer& layer, int64_t block, const int32_t* sums,
                        const float* row_scales, int64_t row, int64_t count, const RowsOut& out) {
  constexpr int64_t kElement = kBf16 ? 2 : 4;
  const int64_t outputs = layer.outputs;
  for (int half = 0; half < 2; ++half, sums += kLanes) {
    const int64_t from = block * kOutputs + half * kLanes;
    if (from >= outputs) return;
    const Vec scales = load_unaligned(layer.scales + from),
              bias = load_unaligned(layer.bias + from);
    const int64_t at = (out.first + row) * outputs + from, left = outputs - from;
    const auto write = [&](int64_t r, int64_t some) {
      const Vec scaled = mul(load_sums(sums + r * kOutputs), scales);
      Vec x = activated<kActivation>(fma(scaled, splat(row_scales[row + r]), bias));
      if (out.added != nullptr)
        x = add(x, load_row(static_cast<const char*>(out.added) + (at + r * outputs) * kElement,
                            kBf16, 0, some));
      write_row(out.data, kBf16, at + r * outputs, x, some);
    };
    if (left >= kLanes)
      for (int64_t r = 0; r < count; ++r) write(r, kLanes);
    else
      for (int64_t r = 0; r < count; ++r) write(r, left);
  }
}

template <int kCount, Activation kActivation>
LC_INLINE void run_rows(const Int8Layer& layer, bool vnni, const uint8_t* x,
                        const float* row_scales, int64_t block, int64_t row, const RowsOut& out) {
  alignas(64) int32_t sums[kCount * kOutputs];
  multiply_rows<kCount>(vnni, x + row * layer.row_bytes(), layer.row_bytes(),
                        layer.weights + block * layer.block_bytes(), layer.quads(),
                        layer.compensation + block * kOutputs, sums);
  if (out.bf16)
    write_block<kActivation, true>(layer, block, sums, row_scales, row, kCount, out);
  else
    write_block<kActivation, false>(layer, block, sums, row_scales, row, kCount, out);
}

template <Activation kActivation>
static void run_activated(const Int8Layer& layer, bool vnni, const uint8_t* x,
                          const float* row_scales, int64_t rows, const RowsOut& out) {
  for (int64_t block = 0; block < layer.blocks(); ++block)
    for (int64_t r = 0; r < rows;) {
      if (rows - r >= kRowsAtOnce) {
        run_rows<kRowsAtOnce, kActivation>(layer, vnni, x, row_scales, block, r, out);
        r += kRowsAtOnce;
      } else if (rows - r >= 4) {
        run_rows<4, kActivation>(layer, vnni, x, row_scales, block, r, out);
        r += 4;
      } else {
        run_rows<1, kActivation>(layer, vnni, x, row_scales, block, r, out);
        r += 1;
      }
    }
}

// Computes the outputs of quantized rows `x`, each with its scale.
LC_INLINE void run_layer(const Int8Layer& layer, bool vnni, const uint8_t* x,
                         const float* row_scales, int64_t rows, const RowsOut& out) {
  switch (layer.activation) {
    case Activation::relu:
      return run_activated<Activation::relu>(layer, vnni, x, row_scales, rows, out);
    case Activation::relu6:
      return run_activated<Activation::relu6>(layer, vnni, x, row_scales, rows, out);
    case Activation::gelu:
      return run_activated<Activation::gelu>(layer, vnni, x, row_scales, rows, out);
    default: return run_activated<Activation::none>(layer, vnni, x, row_scales, rows, out);
  }
}

}  // namespace LC_ISA
}  // namespace lc
