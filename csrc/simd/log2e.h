// Softmaxes run in base 2.
#pragma once

namespace lc {

constexpr float kLog2E = 1.4426950408889634f;

}  // namespace lc
