// What the kernels of attention share: tiles of a head's queries, blocks of its keys, and the rows
// of results.
#pragma once
#include <type_traits>

#include "attention/kernel.h"
#include "simd/rows_out.h"

namespace lc {
namespace LC_ISA {

// The first token of a head; slices are batches · heads.
LC_INLINE char* head_of(const AttentionJob& job, const Tokens& tokens, int64_t slice) {
  return tokens.data + slice / job.heads * tokens.batch + slice % job.heads * tokens.head;
}

// Keys [from, from + count).
struct KeyBlock {
  int64_t from, count;
};

constexpr int64_t key_blocks(int64_t keys) { return (keys + kAttentionKeys - 1) / kAttentionKeys; }

// Block b of `keys` keys: blocks have about one size, all but the last in whole words of kPerWord
// keys.
template <int kPerWord>
constexpr KeyBlock key_block(int64_t keys, int64_t b) {
  const int64_t words = (keys + kPerWord - 1) / kPerWord, blocks = key_blocks(keys);
  const int64_t from = words * b / blocks * kPerWord, end = words * (b + 1) / blocks * kPerWord;
  return {from, (end < keys ? end : keys) - from};
}

// Calls run(number of vectors, first query, queries, their rows of the result, count) for each tile
// of a part of a head's queries. Tiles have about the same number of vectors, at most kMax.
template <int kMax, class Run>
LC_INLINE void for_tiles(const AttentionJob& job, int64_t slice, int64_t part, const Run& run) {
  const int64_t vectors = (job.queries + kLanes - 1) / kLanes;
  const int64_t tiles = (vectors + kMax - 1) / kMax;
  for (int64_t t = tiles * part / job.parts; t < tiles * (part + 1) / job.parts; ++t) {
    const int64_t first = vectors * t / tiles, wide = vectors * (t + 1) / tiles - first;
    const int64_t query = first * kLanes, left = job.queries - query;
    const int64_t count = left < wide * kLanes ? left : wide * kLanes;
    const char* q = head_of(job, job.q, slice) + query * job.q.token;
    char* out = head_of(job, job.out, slice) + query * job.out.token;
    const auto of = [&](auto some) { run(some, query, q, out, count); };
    if (wide == 1) of(std::integral_constant<int, 1>());
    if (wide == 2) of(std::integral_constant<int, 2>());
    if constexpr (kMax > 2) {
      if (wide == 3) of(std::integral_constant<int, 3>());
      if (wide == 4) of(std::integral_constant<int, 4>());
    }
  }
}

// Writes sums [output][vector][lane], times `inverse` of their query, as rows of outputs;
// finish(vector, output) returns what is written for the outputs from that one on.
template <int kWide, class Finish>
LC_INLINE void write_rows(const AttentionJob& job, const float* sums, const Vec (&inverse)[kWide],
                          char* rows, int64_t count, const Finish& finish) {
  for (int v = 0; v < kWide; ++v)
    for (int64_t c = 0; c < job.outputs; c += kLanes) {
      const int64_t some = job.outputs - c < kLanes ? job.outputs - c : kLanes;
      Vec square[kLanes];
      for (int64_t i = 0; i < kLanes; ++i)
        square[i] =
            i < some ? mul(load(sums + ((c + i) * kWide + v) * kLanes), inverse[v]) : splat(0.f);
      transpose(square);
      for (int64_t i = 0; i < kLanes && v * kLanes + i < count; ++i)
        write_row(rows + (v * kLanes + i) * job.out.token, job.bf16, c, finish(square[i], c), some);
    }
}

}  // namespace LC_ISA
}  // namespace lc
