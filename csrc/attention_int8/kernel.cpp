// The kernel behind attention in 8 bits; see attention_int8.h for the idea.
//
// For a tile of queries: bytes [word][query] in the first-level cache; for a block of keys scores
// [key][query], which become probabilities [four keys][query] where they are, and sums
// [output][query] take these in; then the sums, divided, -> rows.
#include "attention_int8/kernel.h"

#include <math.h>

#include "common/attention_tile.h"
#include "common/int8_product.h"
#include "simd/approximate_exp2.h"

namespace lc {
namespace LC_ISA {

#if defined(LC_HAS_DOTS)
LC_BEGIN_DOTS

namespace {

constexpr int kVectors = 4;  // of queries, at most: a tile
constexpr int kRows = 6;     // keys, or outputs, whose sums are kept in registers for all of a tile
constexpr float kLargest = 255.f;  // a probability of 1

static_assert(kVectors * kLanes == kMostQueries, "room for a tile");

struct Head {
  const uint8_t* keys;       // [key][word][4], moved up
  const float* key_steps;    // what one of a key's whole numbers is worth
  const int8_t* values;      // [four keys][output][4]
  const float* value_steps;  // [output], whole vectors of them
  float poison;              // NaN if a key is not finite, else 0
};

// Bytes of a, b, c and d next to each other, lane by lane.
template <bool kSigned>
LC_INLINE __m512i interleaved(Vec a, Vec b, Vec c, Vec d) {
  const __m512i ab = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
  const __m512i cd = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
  const __m512i bytes = kSigned ? _mm512_packs_epi16(ab, cd) : _mm512_packus_epi16(ab, cd);
  const __m512i order = _mm512_set4_epi32(0x0F0B0703, 0x0E0A0602, 0x0D090501, 0x0C080400);
  return _mm512_shuffle_epi8(bytes, order);
}

// Sums of words times x for kCount rows, `apart` bytes from row to row and `along` from step to
// step, each begun with its vector's `begin`; emit(row, vector, sum) takes them as floats. Unsigned
// are the words, or else x.
template <bool kUnsignedWords, int kWide, int kCount, class Emit>
LC_INLINE void product(const void* words, int64_t apart, int64_t along, int64_t row, int64_t steps,
                       const float* x, const __m512i (&begin)[kWide], const Emit& emit) {
  Ints sum[kCount][kWide];
  LC_UNROLLED
  for (int c = 0; c < kCount; ++c) {
    LC_UNROLLED
    for (int v = 0; v < kWide; ++v) sum[c][v] = (Ints)begin[v];
  }
  const char* at = static_cast<const char*>(words) + row * apart;
  for (int64_t s = 0; s < steps; ++s) {
    __m512i in[kWide];
    LC_UNROLLED
    for (int v = 0; v < kWide; ++v) in[v] = _mm512_load_si512(x + (s * kWide + v) * kLanes);
    LC_UNROLLED
    for (int c = 0; c < kCount; ++c) {
      int32_t four;
      memcpy(&four, at + c * apart + s * along, sizeof four);
      const __m512i word = _mm512_set1_epi32(four);
      LC_UNROLLED
      for (int v = 0; v < kWide; ++v) {
        const __m512i so_far = (__m512i)sum[c][v];
        sum[c][v] = (Ints)(kUnsignedWords ? _mm512_dpbusd_epi32(so_far, word, in[v])
                                          : _mm512_dpbusd_epi32(so_far, in[v], word));
      }
    }
  }
  LC_UNROLLED
  for (int c = 0; c < kCount; ++c) {
    LC_UNROLLED
    for (int v = 0; v < kWide; ++v) emit(row + c, v, _mm512_cvtepi32_ps((__m512i)sum[c][v]));
  }
}

template <bool kUnsignedWords, int kWide, class Emit>
LC_INLINE void products(const void* words, int64_t apart, int64_t along, int64_t rows,
                        int64_t steps, const float* x, const __m512i (&begin)[kWide],
                        const Emit& emit) {
  const auto some = [&](auto count, int64_t row) {
    product<kUnsignedWords, kWide, count()>(words, apart, along, row, steps, x, begin, emit);
  };
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) some(std::integral_constant<int, kRows>(), row);
  for (; row + 2 <= rows; row += 2) some(std::integral_constant<int, 2>(), row);
  if (row < rows) some(std::integral_constant<int, 1>(), row);
}

// Rounds rows, in whole vectors; those past `count`, up to a multiple of kLanes, are zeros.
void round_rows(const AttentionJob& job, const char* rows, int64_t token, int64_t count,
                uint8_t* out, int64_t out_row, float* steps) {
  for (int64_t first = 0; first < count; first += kLanes) {
    const auto row = [&](int i) { return rows + (first + i) * token; };
    const int64_t real = count - first;
    Vec most[kLanes];
    for (int i = 0; i < kLanes; ++i)
      most[i] = i < real ? larger_of_row(splat(0.f), row(i), job.bits16, job.dims) : splat(0.f);
    alignas(64) float largest[kLanes], per_one[kLanes];
    largest_lanes(most, largest);
    steps_for(load(largest), per_one, steps + first);
    for (int i = 0; i < kLanes; ++i)
      round_row(i < real ? row(i) : row(0), job.bits16, job.dims,
                {i < real ? per_one[i] : 0.f, 0.f}, out + (first + i) * out_row);
  }
}

// Rounds a tile's queries; `begin` becomes −128 Σ of them, as keys are moved up.
template <int kWide>
void load_queries(const AttentionJob& job, const char* q, int64_t count, uint8_t* rows, float* tile,
                  float* steps, __m512i (&begin)[kWide]) {
  const int64_t words = int8_words(job.dims), apart = int8_row_bytes(job.dims);
  const __m512i up = _mm512_set1_epi8(static_cast<char>(kUp));
  round_rows(job, q, job.q.token, count, rows, apart, steps);
  for (int v = 0; v < kWide; ++v) {
    Ints sum = (Ints)_mm512_setzero_si512();
    for (int64_t w = 0; w < words; w += kLanes) {
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i)
        square[i] =
            load_unaligned(reinterpret_cast<const float*>(rows + (v * kLanes + i) * apart + w * 4));
      transpose(square);
      for (int i = 0; i < kLanes && w + i < words; ++i) {
        const __m512i whole = _mm512_xor_si512(_mm512_castps_si512(square[i]), up);
        _mm512_store_si512(tile + ((w + i) * kWide + v) * kLanes, whole);
        sum = (Ints)_mm512_dpbusd_epi32((__m512i)sum, up, whole);
      }
    }
    begin[v] = _mm512_sub_epi32(_mm512_setzero_si512(), (__m512i)sum);
  }
}

// Turns scores of one vector of queries into probabilities, 2^(score · factor + shift), four keys
// to a word; gives their sums.
template <int kWide>
LC_INLINE __m512i exponentiate(float* scores, int64_t keys, Vec factor, Vec shift) {
  const __m512i ones = _mm512_set1_epi32(0x01010101);
  Ints total = (Ints)_mm512_setzero_si512();
  const auto of = [&](int64_t key) {
    return rough_exp2(fma(load(scores + key * kWide * kLanes), factor, shift));
  };
  for (int64_t key = 0; key < keys; key += 4) {
    Vec p[4];
    LC_UNROLLED
    for (int i = 0; i < 4; ++i) p[i] = key + i < keys ? of(key + i) : splat(0.f);
    const __m512i four = interleaved<false>(p[0], p[1], p[2], p[3]);
    _mm512_store_si512(scores + key / 4 * kWide * kLanes, four);
    total = (Ints)_mm512_dpbusd_epi32((__m512i)total, four, ones);
  }
  return (__m512i)total;
}

struct Tile {
  float* queries;  // [word][vector][lane]
  float* steps;    // [vector][lane]
  float* scores;   // [key][vector][lane]
  float* sums;     // [output][vector][lane]
  uint8_t* rows;   // [query][byte]
};

// `count` queries at `q` against all keys of a head.
template <int kWide>
void run_tile(const AttentionJob& job, const Head& head, const char* q, char* out, int64_t count,
              const Tile& tile) {
  const int64_t words = int8_words(job.dims), key_bytes = int8_row_bytes(job.dims);
  __m512i begin[kWide], zeros[kWide];
  load_queries<kWide>(job, q, count, tile.rows, tile.queries, tile.steps, begin);
  Vec factor[kWide], largest[kWide], total[kWide];
  for (int v = 0; v < kWide; ++v) {
    factor[v] = mul(load(tile.steps + v * kLanes), splat(job.scale * kLog2E));
    largest[v] = splat(-INFINITY);
    total[v] = splat(0.f);
    zeros[v] = _mm512_setzero_si512();
  }
  const float to_largest = log2f(kLargest);
  for (int64_t b = 0; b < key_blocks(job); ++b) {
    const auto block = key_block<4>(job, b);
    const int64_t from = block.from, some = block.count;  // C++17 captures no structured bindings
    Vec fallen[kWide];
    for (int v = 0; v < kWide; ++v) fallen[v] = largest[v];
    products<true>(head.keys + from * key_bytes, key_bytes, 4, some, words, tile.queries, begin,
                   [&](int64_t key, int v, Vec sum) {
                     const Vec score = mul(sum, splat(head.key_steps[from + key]));
                     store(tile.scores + (key * kWide + v) * kLanes, score);
                     largest[v] = max(largest[v], score);
                   });
    for (int v = 0; v < kWide; ++v) {
      const Vec lower = mul(largest[v], factor[v]);
      fallen[v] =
          b == 0 ? splat(0.f) : exp2(max(splat(-200.f), sub(mul(fallen[v], factor[v]), lower)));
      const __m512i sum = exponentiate<kWide>(tile.scores + v * kLanes, some, factor[v],
                                              sub(splat(to_largest), lower));
      total[v] = fma(total[v], fallen[v], _mm512_cvtepi32_ps(sum));
    }
    products<false>(head.values + from * job.outputs, 4, job.outputs * 4, job.outputs,
                    int8_words(some), tile.scores, zeros, [&](int64_t output, int v, Vec sum) {
                      float* at = tile.sums + (output * kWide + v) * kLanes;
                      store(at, b == 0 ? sum : fma(load(at), fallen[v], sum));
                    });
  }
  // What is not finite among the queries and keys is no longer to be seen in whole numbers.
  for (int v = 0; v < kWide; ++v)
    total[v] = div(splat(1.f), fma(factor[v], splat(0.f), add(total[v], splat(head.poison))));
  write_rows(job, tile.sums, total, out, count,
             [&](Vec row, int64_t output) { return mul(row, load(head.value_steps + output)); });
}

// A column of values has a step; `steps` come in whole vectors.
void round_values(const AttentionJob& job, const char* v, int8_t* values, float* steps) {
  const auto row = [&](int64_t key) { return v + key * job.v.token; };
  for (int64_t c = 0; c < job.outputs; c += kLanes) {
    Vec most = splat(0.f);
    for (int64_t key = 0; key < job.keys; ++key)
      most = larger_magnitude(most, load_row(row(key), job.bits16, c, job.outputs));
    alignas(64) float each[kLanes];
    steps_for(most, each, steps + c);
    const Vec per_one = load(each);
    const int64_t some = job.outputs - c < kLanes ? job.outputs - c : kLanes;
    const __mmask16 kept = static_cast<__mmask16>((1u << some) - 1u);
    for (int64_t key = 0; key < job.keys; key += 4) {
      Vec x[4];
      for (int i = 0; i < 4; ++i)
        x[i] = key + i < job.keys ? mul(load_row(row(key + i), job.bits16, c, job.outputs), per_one)
                                  : splat(0.f);
      _mm512_mask_storeu_epi32(values + (key * job.outputs + c * 4), kept,
                               interleaved<true>(x[0], x[1], x[2], x[3]));
    }
  }
}

}  // namespace

void attention_int8(const AttentionJob& job, int64_t slice, float* scratch) {
  const AttentionInt8Room room = attention_int8_room(job);
  const Tile tile{scratch + room.queries, scratch + room.steps, scratch + room.scores,
                  scratch + room.sums, reinterpret_cast<uint8_t*>(scratch + room.rows)};
  auto* keys = reinterpret_cast<uint8_t*>(scratch + room.keys);
  auto* values = reinterpret_cast<int8_t*>(scratch + room.values);
  float *key_steps = scratch + room.key_steps, *value_steps = scratch + room.value_steps;
  Head head{keys, key_steps, values, value_steps, 0.f};
  round_rows(job, head_of(job, job.k, slice), job.k.token, job.keys, keys, int8_row_bytes(job.dims),
             key_steps);
  for (int64_t key = 0; key < job.keys; ++key) head.poison += key_steps[key] * 0.f;
  round_values(job, head_of(job, job.v, slice), values, value_steps);
  for_tiles<kVectors>(job, slice, 0, [&](auto wide, const char* q, char* out, int64_t count) {
    run_tile<wide()>(job, head, q, out, count, tile);
  });
}

LC_END_DOTS
#else
void attention_int8(const AttentionJob&, int64_t, float*) {}  // never called
#endif

}  // namespace LC_ISA
}  // namespace lc
