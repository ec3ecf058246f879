// Linear layers in int8: inputs are quantized with a scale per row, weights with a scale per
// output, both symmetric to ±127.
#pragma once
#include "common/int8_layer.h"

namespace lc {

// Rows that are normalized at once.
constexpr int64_t kNormedRows = 4;

// A layer norm of the rows before they are quantized.
struct RowNorm {
  const float* weight;  // (inputs), padded to whole vectors
  const float* bias;
  float epsilon;
};

// Layers one after the other: what lies between two of them stays in the caches.
struct Int8Job {
  const Int8Layer* layers;
  int64_t count;
  bool bf16;            // x and out are bfloat16
  bool vnni;            // whether the processor multiplies four pairs of int8 at a time
  const RowNorm* norm;  // of x, or null
  const void* x;        // (rows, inputs of the first layer)
  void* out;            // (rows, outputs of the last one)
  const void* added;    // to the outputs, rows like `out` or `out` itself; or null

  int64_t widest_row_bytes() const {
    int64_t most = 0;
    for (int64_t i = 0; i < count; ++i)
      if (layers[i].row_bytes() > most) most = layers[i].row_bytes();
    return most;
  }
  // Floats of scratch, 64-byte aligned, for a call of int8_rows.
  int64_t scratch() const {
    int64_t between = 0;
    for (int64_t i = 0; i + 1 < count; ++i)
      if (layers[i].outputs > between) between = layers[i].outputs;
    const int64_t normed = norm == nullptr ? 0 : kNormedRows * layers[0].row_bytes();
    return kInt8Rows * (widest_row_bytes() / 4 + between) + normed + 16;
  }
};

// Computes rows [first, first + rows), at most kInt8Rows.
LC_DECLARE(void int8_rows(const Int8Job& job, int64_t first, int64_t rows, float* scratch))

}  // namespace lc
