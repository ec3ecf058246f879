// What plans hold of an int8 layer: its quantized weights.
#pragma once
#include <algorithm>
#include <vector>

#include "common/int8_layer.h"
#include "common/parallel.h"
#include "simd/isa.h"

namespace lc {

struct QuantizedLayer {
  AlignedFloats weights;
  std::vector<int32_t> compensation;
  std::vector<float> scales, bias;
  Int8Layer layer;  // points to them

  // `weight` is (outputs, inputs), and `given_bias` (outputs) or null.
  QuantizedLayer(Isa isa, int64_t outputs, int64_t inputs, Activation activation,
                 const void* weight, bool bf16, const float* given_bias, int threads)
      : weights(0),
        layer{outputs, inputs, activation, isa_lanes(isa), nullptr, nullptr, nullptr, nullptr} {
    const auto padded = static_cast<size_t>(layer.padded());
    weights = AlignedFloats(layer.blocks() * layer.block_bytes() / 4, Memory::uninitialized);
    compensation.resize(padded);
    scales.resize(padded, 0.f);
    bias.resize(padded, 0.f);
    if (given_bias != nullptr) std::copy_n(given_bias, outputs, bias.begin());
    auto* out = reinterpret_cast<int8_t*>(weights.data.get());
    parallel_for(
        layer.blocks(), threads, layer.row_bytes() / 4,
        [&](int64_t block, float* scratch) {
          const int64_t first = block * 2 * layer.lanes;
          quantize_block(isa, weight, bf16, block, out + block * layer.block_bytes(),
                         compensation.data() + first, scales.data() + first, scratch);
        },
        Memory::uninitialized);
    layer.weights = out;
    layer.compensation = compensation.data();
    layer.scales = scales.data();
    layer.bias = bias.data();
  }

 private:
  void quantize_block(Isa isa, const void* weight, bool bf16, int64_t block, int8_t* out,
                      int32_t* sums, float* scale, float* scratch) const {
    LC_DISPATCH(isa, quantize_int8_weights, layer, weight, bf16, block, out, sums, scale, scratch)
  }
};

}  // namespace lc
