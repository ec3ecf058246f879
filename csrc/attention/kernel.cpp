// The kernel behind ops.attention; see attention/kernel.h for the idea.
//
// For a tile of queries: [dim][query] in the first-level cache; for each block of keys: scores
// [key][query], which become probabilities in place and are added to sums [output][query]; then the
// sums, divided, -> rows.
#include "attention/kernel.h"

#include <math.h>

#include "common/attention_tile.h"
#include "common/tile.h"
#include "simd/approximate_exp2.h"

namespace lc {
namespace LC_ISA {
namespace {

static_assert(attention_tile(kLanes) == kTile, "tasks are cut at tiles");

// Keys, or outputs, whose sums fill the registers.
constexpr int kRowsAtOnce = 6;

// A 32-bit word for each row and step.
struct Words {
  const char* data;
  int64_t row_bytes, step_bytes;  // from one to the next
};

struct Scratch {
  float* queries;  // [word][vector][lane]
  float* scores;   // [key][vector][lane]
  float* sums;     // [output][vector][lane]
};

// Σ over steps of word · x for kCount rows; emit(row, vector, sum) takes them.
template <Terms kTerms, int kWide, int kCount, class Emit>
LC_INLINE void product(const Words& words, int64_t row, int64_t steps, const float* x,
                       const Emit& emit) {
  Vec sum[kCount][kWide];
  for (int c = 0; c < kCount; ++c)
    for (int v = 0; v < kWide; ++v) sum[c][v] = splat(0.f);
  const char* at[kCount];
  for (int c = 0; c < kCount; ++c) at[c] = words.data + (row + c) * words.row_bytes;
  for (int64_t s = 0; s < steps; ++s) {
    Vec in[kWide];
    for (int v = 0; v < kWide; ++v) in[v] = load(x + (s * kWide + v) * kLanes);
    for (int c = 0; c < kCount; ++c) {
      float word;
      memcpy(&word, at[c] + s * words.step_bytes, sizeof word);
      const Vec w = splat(word);
      for (int v = 0; v < kWide; ++v) sum[c][v] = with_term<kTerms>(in[v], w, sum[c][v]);
    }
  }
  for (int c = 0; c < kCount; ++c)
    for (int v = 0; v < kWide; ++v) emit(row + c, v, sum[c][v]);
}

template <Terms kTerms, int kWide, class Emit>
LC_INLINE void products(const Words& words, int64_t rows, int64_t steps, const float* x,
                        const Emit& emit) {
  int64_t row = 0;
  for (; row + kRowsAtOnce <= rows; row += kRowsAtOnce)
    product<kTerms, kWide, kRowsAtOnce>(words, row, steps, x, emit);
  switch (rows - row) {
    case 1: return product<kTerms, kWide, 1>(words, row, steps, x, emit);
    case 2: return product<kTerms, kWide, 2>(words, row, steps, x, emit);
    case 3: return product<kTerms, kWide, 3>(words, row, steps, x, emit);
    case 4: return product<kTerms, kWide, 4>(words, row, steps, x, emit);
    case 5: return product<kTerms, kWide, 5>(words, row, steps, x, emit);
    default: return;
  }
}

// Words [from, from + kLanes) of a row; those past its end are 0.
template <Terms kTerms>
LC_INLINE Vec load_words(const char* row, bool bf16, int64_t from, int64_t dims) {
  const bool widen = kTerms == Terms::products && bf16;
  const int64_t size = bf16 ? 2 : 4, at = from * (widen ? 2 : 4);
  const int64_t left = dims * size - at, wanted = kLanes * (widen ? 2 : 4);
  alignas(64) char some[kLanes * 4] = {};
  if (left < wanted) {
    memcpy(some, row + at, static_cast<size_t>(left));
    row = some;
  } else {
    row += at;
  }
  return widen ? load_wide(reinterpret_cast<const uint16_t*>(row))
               : load_unaligned(reinterpret_cast<const float*>(row));
}

template <Terms kTerms, int kWide>
void load_queries(const AttentionJob& job, const char* rows, int64_t count, float* tile) {
  const int64_t words = attention_words(kTerms == Terms::pairs, job.dims);
  for (int v = 0; v < kWide; ++v)
    for (int64_t w = 0; w < words; w += kLanes) {
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int64_t query = v * kLanes + i;
        square[i] = query < count
                        ? load_words<kTerms>(rows + query * job.q.token, job.bf16, w, job.dims)
                        : splat(0.f);
      }
      transpose(square);
      for (int i = 0; i < kLanes && w + i < words; ++i)
        store(tile + ((w + i) * kWide + v) * kLanes, square[i]);
    }
}

// Two probabilities of each query as the two halves of a word.
LC_INLINE Vec paired(Vec even, Vec odd) {
#if defined(__AVX512BF16__)
  alignas(64) static constexpr uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                      21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                      11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(kOrder), both));
#else
  return add(even, odd);  // never called
#endif
}

// 2^(score · factor + shift). 2^-200 is nothing beside 2^0; so is 2^−∞ that way.
template <Terms kTerms>
LC_INLINE Vec power(Vec score, Vec factor, Vec shift) {
  const Vec t = max(splat(-200.f), fma(score, factor, shift));
  return kTerms == Terms::pairs ? approximate_exp2(t) : exp2(t);
}

// Turns scores into probabilities, 2^(score · factor + shift), and adds them to `total`.
template <Terms kTerms, int kWide>
LC_INLINE void exponentiate(float* scores, int64_t keys, Vec factor, Vec shift, Vec& total) {
  const auto of = [&](int64_t key) {
    return power<kTerms>(load(scores + key * kWide * kLanes), factor, shift);
  };
  Vec even = total, odd = splat(0.f);
  for (int64_t key = 0; key < keys; key += 2) {
    const bool single = key + 1 == keys;
    const Vec first = of(key), second = single ? splat(0.f) : of(key + 1);
    even = add(even, first);
    odd = add(odd, second);
    if (kTerms == Terms::pairs) {
      store(scores + key / 2 * kWide * kLanes, paired(first, second));
    } else {
      store(scores + key * kWide * kLanes, first);
      if (!single) store(scores + (key + 1) * kWide * kLanes, second);
    }
  }
  total = add(even, odd);
}

// x but for its first lanes, which become −∞.
LC_INLINE Vec hide(Vec x, int64_t lanes) {
  if (lanes <= 0) return x;
  return select(lanes >= kLanes ? 0u : ~0u << lanes, x, splat(-INFINITY));
}

// `count` queries at `q`, from query `first` on, against the keys of a head that they see. A row of
// `keys` is a key; one of `values` is an output, its steps are the keys.
template <Terms kTerms, int kWide>
void run_tile(const AttentionJob& job, int64_t first, const char* q, char* out, int64_t count,
              const Words& keys, const Words& values, const Scratch& scratch) {
  constexpr int kPerWord = kTerms == Terms::pairs ? 2 : 1;
  const int64_t words = attention_words(kTerms == Terms::pairs, job.dims);
  const Vec factor = splat(job.scale * kLog2E);
  load_queries<kTerms, kWide>(job, q, count, scratch.queries);
  Vec largest[kWide], total[kWide];
  for (int v = 0; v < kWide; ++v) {
    largest[v] = splat(-INFINITY);
    total[v] = splat(0.f);
  }
  // The last key that the first query sees; a later query sees as many more.
  const int64_t last = job.causal ? job.keys - job.queries + first : job.keys;
  const int64_t seen = job.causal ? last + count : job.keys;
  for (int64_t b = 0; b < key_blocks(seen); ++b) {
    const auto block_of_keys = key_block<2>(seen, b);
    const int64_t from = block_of_keys.from, some = block_of_keys.count;
    Vec rescale[kWide];
    for (int v = 0; v < kWide; ++v) rescale[v] = largest[v];
    const Words block{keys.data + from * keys.row_bytes, keys.row_bytes, keys.step_bytes};
    const auto take = [&](int64_t key, int v, Vec sum) {
      store(scratch.scores + (key * kWide + v) * kLanes, sum);
      largest[v] = max(largest[v], sum);
    };
    // Two loops, as a test of every key costs 4 to 8 % where there is nothing to hide.
    if (from + some <= last + 1)
      products<kTerms, kWide>(block, some, words, scratch.queries, take);
    else
      products<kTerms, kWide>(block, some, words, scratch.queries,
                              [&](int64_t key, int v, Vec sum) {
                                take(key, v, hide(sum, from + key - last - v * kLanes));
                              });
    for (int v = 0; v < kWide; ++v) {
      // Finite even if all scores are −∞, to avoid −∞ − (−∞).
      const Vec shift = mul(max(splat(-1.0e36f), largest[v]), splat(-job.scale * kLog2E));
      rescale[v] = power<kTerms>(rescale[v], factor, shift);
      total[v] = mul(total[v], rescale[v]);
      exponentiate<kTerms, kWide>(scratch.scores + v * kLanes, some, factor, shift, total[v]);
    }
    const Words part{values.data + from / kPerWord * values.step_bytes, values.row_bytes,
                     values.step_bytes};
    const int64_t steps = attention_words(kTerms == Terms::pairs, some);
    products<kTerms, kWide>(part, job.outputs, steps, scratch.scores,
                            [&](int64_t output, int v, Vec sum) {
                              float* at = scratch.sums + (output * kWide + v) * kLanes;
                              store(at, b == 0 ? sum : fma(load(at), rescale[v], sum));
                            });
  }
  // The softmax of scores that are all −∞ is NaN.
  for (int v = 0; v < kWide; ++v)
    total[v] = div(splat(1.f), add(total[v], sub(largest[v], largest[v])));
  write_rows(job, scratch.sums, total, out, count, [](Vec row, int64_t) { return row; });
}

// A head's keys, copied where the kernel cannot read them in place.
template <Terms kTerms>
Words prepare_keys(const AttentionJob& job, const char* k, float* copy) {
  if (!copies_keys(job)) return {k, job.k.token, 4};
  const int64_t words = attention_words(kTerms == Terms::pairs, job.dims);
  for (int64_t key = 0; key < job.keys; ++key) {
    const char* from = k + key * job.k.token;
    float* to = copy + key * words;
    if (kTerms == Terms::pairs) {
      to[words - 1] = 0.f;
      memcpy(to, from, static_cast<size_t>(job.dims) * 2);
    } else {
      for (int64_t d = 0; d < job.dims; ++d)
        to[d] = widen(reinterpret_cast<const uint16_t*>(from)[d]);
    }
  }
  return {reinterpret_cast<const char*>(copy), words * 4, 4};
}

template <Terms kTerms>
Words prepare_values(const AttentionJob& job, const char* v, float* copy) {
  if (!job.bf16) return {v, 4, job.v.token};
  const int64_t outputs = job.outputs;  // a local: `copy` may alias job
  const auto row = [&](int64_t key) {
    return reinterpret_cast<const uint16_t*>(v + key * job.v.token);
  };
  if (kTerms == Terms::pairs) {
    for (int64_t key = 0; key < job.keys; key += 2) {
      const bool single = key + 1 == job.keys;
      const uint16_t *first = row(key), *second = row(single ? key : key + 1);
      const uint32_t kept = single ? 0 : 0xFFFF0000u;
      for (int64_t c = 0; c < outputs; ++c) {
        const uint32_t word = first[c] | (static_cast<uint32_t>(second[c]) << 16 & kept);
        memcpy(copy + key / 2 * outputs + c, &word, sizeof word);
      }
    }
  } else {
    for (int64_t key = 0; key < job.keys; ++key)
      for (int64_t c = 0; c < outputs; ++c) copy[key * outputs + c] = widen(row(key)[c]);
  }
  return {reinterpret_cast<const char*>(copy), 4, outputs * 4};
}

template <Terms kTerms>
void run(const AttentionJob& job, int64_t task, float* memory) {
  const int64_t part = task % job.parts, slice = task / job.parts;
  Scratch scratch;
  scratch.queries = memory;
  scratch.scores = scratch.queries + kMaxQueries * job.dims;
  scratch.sums = scratch.scores + kMaxQueries * kAttentionKeys;
  float* copies = scratch.sums + kMaxQueries * job.outputs;
  const Words keys = prepare_keys<kTerms>(job, head_of(job, job.k, slice), copies);
  const Words values =
      prepare_values<kTerms>(job, head_of(job, job.v, slice), copies + copied_keys(job));
  for_tiles<kVectors>(job, slice, part,
                      [&](auto wide, int64_t first, const char* q, char* out, int64_t count) {
                        run_tile<kTerms, wide()>(job, first, q, out, count, keys, values, scratch);
                      });
}

}  // namespace

void attention(const AttentionJob& job, int64_t task, float* scratch) {
  if (kHasPairs && job.pairs) return run<Terms::pairs>(job, task, scratch);
  run<Terms::products>(job, task, scratch);
}

}  // namespace LC_ISA
}  // namespace lc
