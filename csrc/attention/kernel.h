// softmax(q kᵀ · scale) v over any number of heads, all keys or those up to a query, without a
// matrix of scores in memory.
//
// Queries lie across the lanes: keys and values are broadcast from their rows, and the softmax
// needs no sum over lanes. Keys come in blocks whose scores stay in the caches, with an online
// softmax (Milakov & Gimelshein, arXiv 1805.02867), so that memory does not grow with the square of
// the tokens.
#pragma once
#include <cstddef>
#include <cstdint>

#include "simd/declare.h"

namespace lc {

// Queries that are multiplied with a key at once: a tile of common/tile.h.
constexpr int64_t attention_tile(int lanes) { return lanes == 16 ? 64 : 2 * lanes; }
constexpr int64_t kMaxQueries = 64;
// Keys of a block, at most.
constexpr int64_t kAttentionKeys = 112;

// (batches, heads, tokens, dims) with contiguous dims; strides are in bytes.
struct Tokens {
  char* data;
  int64_t batch, head, token;
};

struct AttentionJob {
  Tokens q, k, v, out;
  bool bf16;    // all four are bfloat16, else float32
  bool pairs;   // and the processor multiplies bfloat16 two at a time
  bool causal;  // the last query sees all keys, each one before it one key less
  int64_t heads, queries, keys;
  int64_t dims, outputs;  // of q and k, of v and out
  float scale;
  int64_t parts;  // tasks of a head, each with some of its queries
};

// Keys and values that cannot be read in place are copied for a task, [token][word] with a 32-bit
// word for a float or a pair of bfloat16.
constexpr int64_t attention_words(bool pairs, int64_t dims) {
  return pairs ? (dims + 1) / 2 : dims;
}
constexpr bool copies_keys(const AttentionJob& job) {
  return job.pairs ? job.dims % 2 != 0 : job.bf16;
}
constexpr int64_t copied_keys(const AttentionJob& job) {
  return copies_keys(job) ? job.keys * attention_words(job.pairs, job.dims) : 0;
}
constexpr int64_t copied_values(const AttentionJob& job) {
  return job.bf16 ? attention_words(job.pairs, job.keys) * job.outputs : 0;
}

// Floats of scratch, 64-byte aligned and zeroed, for one call.
constexpr int64_t attention_scratch(const AttentionJob& job) {
  return kMaxQueries * (job.dims + kAttentionKeys + job.outputs) + copied_keys(job) +
         copied_values(job);
}

// Computes one of batches · heads · parts tasks with no allocation.
LC_DECLARE(void attention(const AttentionJob& job, int64_t task, float* scratch))

}  // namespace lc
