// Activations of a layer, named here for plans and kernels; activate.h computes them.
#pragma once

namespace lc {

enum class Activation { none, relu, gelu };

}  // namespace lc
