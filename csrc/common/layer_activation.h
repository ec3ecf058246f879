// Activations of a layer, named here for plans and kernels; activate.h computes them.
#pragma once

namespace lc {

enum class Activation { none, relu, relu6, gelu };

}  // namespace lc
