// Names of the activations of a layer; simd/activate.h computes them.
#pragma once

namespace lc {

enum class Activation { none, relu, relu6, gelu };

}  // namespace lc
