// Sizes that plans and the kernels of common/tile.h agree on.
#pragma once
#include <cstdint>

namespace lc {

// Rows of one call of a kernel: every weight that it fetches is used for all of them.
constexpr int64_t kRows = 64;
// Weights are packed in groups of four outputs, [group][dim][output of the group], the last one
// padded.
constexpr int64_t kGroup = 4;
// Outputs of a block, whose sums fit the first-level cache.
constexpr int64_t kBlock = 32;

constexpr int64_t packed_size(int64_t outputs, int64_t dims) {
  return (outputs + kGroup - 1) / kGroup * kGroup * dims;
}
constexpr int64_t packed_index(int64_t output, int64_t dim, int64_t dims) {
  return output / kGroup * kGroup * dims + dim * kGroup + output % kGroup;
}

}  // namespace lc
