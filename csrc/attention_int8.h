// Attention whose products are of 8-bit numbers, for processors that multiply four pairs of them at
// a time.
//
// Queries and keys are whole multiples, at most 127, of a step of their own, and values of one of
// their column. Scores are floats; probabilities are whole multiples of 1/255 of the largest that a
// query has among the keys so far, and a query's sum is that of what they were rounded to.
#pragma once
#include "attention.h"

namespace lc {

// Words of four bytes.
constexpr int64_t int8_words(int64_t count) { return (count + 3) / 4; }
// Bytes of a row while it is rounded, in whole vectors.
constexpr int64_t int8_row_bytes(int64_t dims) { return (dims + 63) / 64 * 64; }
constexpr int64_t int8_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Floats of scratch, 64-byte aligned and zeroed, for one call.
constexpr int64_t attention_int8_scratch(const AttentionJob& job) {
  const int64_t row = int8_row_bytes(job.dims), outputs = job.outputs;
  const int64_t query = int8_words(job.dims) * 4 + 4 + kAttentionKeys * 4 + outputs * 4 + row;
  const int64_t values = int8_words(job.keys) * 4 * outputs + (outputs + 16) * 4;
  return (kMostQueries * query + (job.keys + 16) * (row + 4) + values) / 4 + 9 * 16;
}

// Computes one of batches · heads heads with no allocation; `parts` of the job is not looked at.
LC_DECLARE(void attention_int8(const AttentionJob& job, int64_t slice, float* scratch))

}  // namespace lc
