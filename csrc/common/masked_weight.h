// A weight matrix in Python's memory and what masks it: the input of common/masked_product.h.
#pragma once
#include <cstdint>

#include "common/tile_sizes.h"

namespace lc {

struct MaskedWeight {
  const void* data;  // (outputs, dims) float32, or bfloat16 where bf16
  bool bf16;
  int64_t outputs, dims;
  const float* thresholds;  // [sub-model], or null: every weight stays
  const float* saliency;    // (outputs, dims), or null: |w|
  bool random;              // saliency drawn by Philox, weight i of stream 0 number i
  uint64_t seed;
  bool pairs;  // inputs and weights are bfloat16 and are multiplied two dims at a time
};

// The inputs (sub-models, rows, dims) of a layer in the weight's dtype; sub-model k's start at row
// k · stride, with stride 0 where all sub-models share them.
struct LayerInputs {
  const void* data;
  bool bf16;
  int64_t sub_models, rows, stride;
};

// Rows of a task: every block of weights that it packs is used for all of them, and they fit the
// second-level cache for a width of up to 1024.
constexpr int64_t kTaskRows = 256;

// A piece of the work: rows of one sub-model against the outputs [from, to).
struct LayerTask {
  int64_t sub_model, row, rows, from, to;
};

// The tasks of a call: outputs in segments of a fixed length, so that no row's sums depend on the
// batch; neighbours in this order share a segment, which stays in the last-level cache.
class LayerTasks {
 public:
  LayerTasks(const MaskedWeight& weight, const LayerInputs& inputs, int64_t segment)
      : outputs_(weight.outputs),
        rows_(inputs.rows),
        segment_(segment),
        chunks_((inputs.rows + kTaskRows - 1) / kTaskRows),
        per_segment_(chunks_ * inputs.sub_models) {}
  int64_t count() const { return (outputs_ + segment_ - 1) / segment_ * per_segment_; }
  LayerTask operator[](int64_t task) const {
    const int64_t from = task / per_segment_ * segment_, to = from + segment_;
    const int64_t row = task % per_segment_ % chunks_ * kTaskRows;
    const int64_t rows = rows_ - row < kTaskRows ? rows_ - row : kTaskRows;
    return {task % per_segment_ / chunks_, row, rows, from, to < outputs_ ? to : outputs_};
  }

 private:
  int64_t outputs_, rows_, segment_, chunks_, per_segment_;
};

// The stride of an output's weights before they are packed: whole vectors and one more, against
// conflict misses.
constexpr int64_t kMaxLanes = 16;
constexpr int64_t row_stride(int64_t dims) {
  return (dims + kMaxLanes - 1) / kMaxLanes * kMaxLanes + kMaxLanes;
}

// Floats of scratch for a task: its inputs, a packed block of weights, the rows that it is packed
// from, and the block's sums.
constexpr int64_t layer_scratch(int64_t dims) {
  return kTaskRows * dims + kBlock * (dims + kRows) + kMaxLanes * row_stride(dims);
}

}  // namespace lc
