// What kernels of attention share: a head's queries in tiles, and the rows that come of a tile.
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

// Keys of a block: `count` from `from` on.
struct KeyBlock {
  int64_t from, count;
};

constexpr int64_t key_blocks(const AttentionJob& job) {
  return (job.keys + kAttentionKeys - 1) / kAttentionKeys;
}

// Block b: about as large as the others, and all but the last with whole words of kPerWord keys.
template <int kPerWord>
constexpr KeyBlock key_block(const AttentionJob& job, int64_t b) {
  const int64_t words = (job.keys + kPerWord - 1) / kPerWord, blocks = key_blocks(job);
  const int64_t from = words * b / blocks * kPerWord, end = words * (b + 1) / blocks * kPerWord;
  return {from, (end < job.keys ? end : job.keys) - from};
}

// Calls run(number of vectors, queries, their rows of the result, count) for the tiles of a part of
// a head's queries. They have about the same number of vectors, at most kMost.
template <int kMost, class Run>
LC_INLINE void for_tiles(const AttentionJob& job, int64_t slice, int64_t part, const Run& run) {
  const int64_t vectors = (job.queries + kLanes - 1) / kLanes;
  const int64_t tiles = (vectors + kMost - 1) / kMost;
  for (int64_t t = tiles * part / job.parts; t < tiles * (part + 1) / job.parts; ++t) {
    const int64_t first = vectors * t / tiles, wide = vectors * (t + 1) / tiles - first;
    const int64_t query = first * kLanes, left = job.queries - query;
    const int64_t count = left < wide * kLanes ? left : wide * kLanes;
    const char* q = head_of(job, job.q, slice) + query * job.q.token;
    char* out = head_of(job, job.out, slice) + query * job.out.token;
    const auto of = [&](auto some) { run(some, q, out, count); };
    if (wide == 1) of(std::integral_constant<int, 1>());
    if (wide == 2) of(std::integral_constant<int, 2>());
    if constexpr (kMost > 2) {
      if (wide == 3) of(std::integral_constant<int, 3>());
      if (wide == 4) of(std::integral_constant<int, 4>());
    }
  }
}

// Writes sums [output][vector][lane], times `inverse` of their query, as rows of outputs;
// finish(row, output) has the last word on a vector of outputs from that one on.
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
        write_row(rows + (v * kLanes + i) * job.out.token, job.bits16, c, finish(square[i], c),
                  some);
    }
}

}  // namespace LC_ISA
}  // namespace lc
