// Attention whose products are of 8-bit numbers, for processors that multiply four pairs of them at
// a time.
//
// Queries and keys are whole multiples, at most 127, of a step of their own, and values of one of
// their column. Scores are floats; probabilities are whole multiples of 1/255 of the largest that a
// query has among the keys so far, and a query's sum is that of what they were rounded to.
#pragma once
#include "attention/kernel.h"

namespace lc {

// Words of four bytes.
constexpr int64_t int8_words(int64_t count) { return (count + 3) / 4; }
// Bytes of a row while it is rounded, in whole vectors.
constexpr int64_t int8_row_bytes(int64_t dims) { return (dims + 63) / 64 * 64; }
// Floats that so many bytes take in whole cache lines.
constexpr int64_t floats_in_lines(int64_t bytes) { return (bytes + 63) / 64 * 16; }

// Where in the scratch memory, in floats.
struct AttentionInt8Room {
  int64_t queries, steps, scores, sums, rows;         // of a tile
  int64_t keys, key_steps, values, value_steps, end;  // of a head
};
constexpr AttentionInt8Room attention_int8_room(const AttentionJob& job) {
  const int64_t row = int8_row_bytes(job.dims), outputs = job.outputs;
  const int64_t keys = (job.keys + 15) / 16 * 16;  // rounded 16 at a time
  AttentionInt8Room room{};
  room.steps = room.queries + floats_in_lines(kMostQueries * int8_words(job.dims) * 4);
  room.scores = room.steps + floats_in_lines(kMostQueries * 4);
  room.sums = room.scores + floats_in_lines(kMostQueries * kAttentionKeys * 4);
  room.rows = room.sums + floats_in_lines(kMostQueries * outputs * 4);
  room.keys = room.rows + floats_in_lines(kMostQueries * row);
  room.key_steps = room.keys + floats_in_lines(keys * row);
  room.values = room.key_steps + floats_in_lines(keys * 4);
  room.value_steps = room.values + floats_in_lines(int8_words(job.keys) * outputs * 4);
  room.end = room.value_steps + floats_in_lines(outputs * 4);
  return room;
}

// Floats of scratch, 64-byte aligned and zeroed, for one call.
constexpr int64_t attention_int8_scratch(const AttentionJob& job) {
  return attention_int8_room(job).end;
}

// Computes one of batches · heads heads with no allocation; `parts` of the job is not looked at.
LC_DECLARE(void attention_int8(const AttentionJob& job, int64_t slice, float* scratch))

}  // namespace lc
