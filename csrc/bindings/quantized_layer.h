// What plans hold of a layer in 8 bits.
#pragma once
#include <algorithm>
#include <vector>

#include "common/int8_layer.h"
#include "common/parallel.h"
#include "simd/isa.h"

namespace lc {

struct RoundedLayer {
  AlignedFloats weights;
  std::vector<int32_t> begin;
  std::vector<float> steps, bias;
  Int8Layer layer;  // which points to them

  // `weight` is (outputs, inputs), and `given_bias` (outputs) or null.
  RoundedLayer(Isa isa, int64_t outputs, int64_t inputs, Activation activation, const void* weight,
               bool bits16, const float* given_bias, int threads)
      : weights(0),
        layer{outputs, inputs, activation, isa_lanes(isa), nullptr, nullptr, nullptr, nullptr} {
    const auto padded = static_cast<size_t>(layer.padded());
    weights = AlignedFloats(layer.blocks() * layer.block_bytes() / 4, Memory::as_it_is);
    begin.resize(padded);
    steps.resize(padded, 0.f);
    bias.resize(padded, 0.f);
    if (given_bias != nullptr) std::copy_n(given_bias, outputs, bias.begin());
    auto* out = reinterpret_cast<int8_t*>(weights.data.get());
    parallel_for(
        layer.blocks(), threads, layer.row_bytes() / 4,
        [&](int64_t block, float* scratch) {
          const int64_t first = block * 2 * layer.lanes;
          round_block(isa, weight, bits16, block, out + block * layer.block_bytes(),
                      begin.data() + first, steps.data() + first, scratch);
        },
        Memory::as_it_is);
    layer.weights = out;
    layer.begin = begin.data();
    layer.steps = steps.data();
    layer.bias = bias.data();
  }

 private:
  void round_block(Isa isa, const void* weight, bool bits16, int64_t block, int8_t* out,
                   int32_t* first, float* step, float* scratch) const {
    LC_DISPATCH(isa, int8_weights, layer, weight, bits16, block, out, first, step, scratch)
  }
};

}  // namespace lc
