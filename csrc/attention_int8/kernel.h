// Attention in int8, for processors with VNNI; transformer_block uses it.
//
// Q and K are quantized per row and V per column, symmetric to ±127. Scores are floats;
// probabilities are uint8, 255 for the largest that a query has among the keys so far, and a
// query's sum is that of the quantized ones.
#pragma once
#include "attention/kernel.h"

namespace lc {

// 32-bit words that so many bytes take.
constexpr int64_t int8_words(int64_t count) { return (count + 3) / 4; }
// Bytes of a quantized row, in whole vectors.
constexpr int64_t int8_row_bytes(int64_t dims) { return (dims + 63) / 64 * 64; }
// Floats that so many bytes take in whole cache lines.
constexpr int64_t floats_in_lines(int64_t bytes) { return (bytes + 63) / 64 * 16; }

// Offsets into the scratch memory, in floats.
struct AttentionInt8Layout {
  int64_t queries, scales, scores, sums, rows;          // of a tile
  int64_t keys, key_scales, values, value_scales, end;  // of a head
};
constexpr AttentionInt8Layout attention_int8_layout(const AttentionJob& job) {
  const int64_t row = int8_row_bytes(job.dims), outputs = job.outputs;
  const int64_t keys = (job.keys + 15) / 16 * 16;  // quantized 16 at a time
  AttentionInt8Layout layout{};
  layout.scales = layout.queries + floats_in_lines(kMaxQueries * int8_words(job.dims) * 4);
  layout.scores = layout.scales + floats_in_lines(kMaxQueries * 4);
  layout.sums = layout.scores + floats_in_lines(kMaxQueries * kAttentionKeys * 4);
  layout.rows = layout.sums + floats_in_lines(kMaxQueries * outputs * 4);
  layout.keys = layout.rows + floats_in_lines(kMaxQueries * row);
  layout.key_scales = layout.keys + floats_in_lines(keys * row);
  layout.values = layout.key_scales + floats_in_lines(keys * 4);
  layout.value_scales = layout.values + floats_in_lines(int8_words(job.keys) * outputs * 4);
  layout.end = layout.value_scales + floats_in_lines(outputs * 4);
  return layout;
}

// Floats of scratch, 64-byte aligned and zeroed, for one call.
constexpr int64_t attention_int8_scratch(const AttentionJob& job) {
  return attention_int8_layout(job).end;
}

// Computes one of batches · heads heads with no allocation; `parts` of the job is ignored.
LC_DECLARE(void attention_int8(const AttentionJob& job, int64_t slice, float* scratch))

}  // namespace lc
