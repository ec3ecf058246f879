// A linear layer whose products are of 8-bit numbers: each row of inputs, and each output's
// weights, are whole multiples of a step of their own, at most 127 of it.
#pragma once
#include "common/int8_layer.h"

namespace lc {

// Rows that are normed at once.
constexpr int64_t kNormedRows = 4;

// A layer norm of rows before they are rounded.
struct RowNorm {
  const float* weight;  // (inputs), whole vectors of them
  const float* bias;
  float epsilon;
};

// Layers one after the other: what lies between them never leaves the caches.
struct Int8Job {
  const Int8Layer* layers;
  int64_t count;
  bool bits16;          // x and out are bfloat16
  bool dots;            // the processor multiplies four pairs at a time
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
