// The kernel behind attention in int8; see attention_int8/kernel.h for the idea.
//
// For a tile of queries: int8 [word][query] in the first-level cache; for each block of keys:
// scores [key][query], which become probabilities [four keys][query] in place and are added to sums
// [output][query]; then the sums, divided, -> rows.
#include "attention_int8/kernel.h"

#include <math.h>

#include "common/attention_tile.h"
#include "common/int8_product.h"
#include "simd/approximate_exp2.h"

namespace lc {
namespace LC_ISA {

#if defined(LC_HAS_VNNI)
LC_BEGIN_VNNI

namespace {

constexpr int kVectors = 4;    // of queries, at most: a tile
constexpr int kRows = 6;       // keys, or outputs, whose sums fill the registers
constexpr float kOne = 255.f;  // a probability of 1

static_assert(kVectors * kLanes == kMaxQueries, "room for a tile");

struct Head {
  const uint8_t* keys;        // [key][word][4], with a zero point of 128
  const float* key_scales;    // [key]
  const int8_t* values;       // [four keys][output][4]
  const float* value_scales;  // [output], padded to whole vectors
  float poison;               // NaN if a key is not finite, else 0
};

// a, b, c and d rounded to bytes, the four of a lane side by side.
template <bool kSigned>
LC_INLINE __m512i interleaved(Vec a, Vec b, Vec c, Vec d) {
  const __m512i ab = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
  const __m512i cd = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
  const __m512i bytes = kSigned ? _mm512_packs_epi16(ab, cd) : _mm512_packus_epi16(ab, cd);
  const __m512i order = _mm512_set4_epi32(0x0F0B0703, 0x0E0A0602, 0x0D090501, 0x0C080400);
  return _mm512_shuffle_epi8(bytes, order);
}

// Sums of words · x for kCount rows, `row_bytes` from row to row and `step_bytes` from step to
// step, each starting at its vector's `start`; emit(row, vector, sum) takes them as floats. Either
// the words or x are unsigned.
template <bool kUnsignedWords, int kWide, int kCount, class Emit>
LC_INLINE void product(const void* words, int64_t row_bytes, int64_t step_bytes, int64_t row,
                       int64_t steps, const float* x, const __m512i (&start)[kWide],
                       const Emit& emit) {
  Ints sum[kCount][kWide];
  LC_UNROLLED
  for (int c = 0; c < kCount; ++c) {
    LC_UNROLLED
    for (int v = 0; v < kWide; ++v) sum[c][v] = (Ints)start[v];
  }
  const char* at = static_cast<const char*>(words) + row * row_bytes;
  for (int64_t s = 0; s < steps; ++s) {
    __m512i in[kWide];
    LC_UNROLLED
    for (int v = 0; v < kWide; ++v) in[v] = _mm512_load_si512(x + (s * kWide + v) * kLanes);
    LC_UNROLLED
    for (int c = 0; c < kCount; ++c) {
      int32_t four;
      memcpy(&four, at + c * row_bytes + s * step_bytes, sizeof four);
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
LC_INLINE void products(const void* words, int64_t row_bytes, int64_t step_bytes, int64_t rows,
                        int64_t steps, const float* x, const __m512i (&start)[kWide],
                        const Emit& emit) {
  const auto some = [&](auto count, int64_t row) {
    product<kUnsignedWords, kWide, count()>(words, row_bytes, step_bytes, row, steps, x, start,
                                            emit);
  };
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) some(std::integral_constant<int, kRows>(), row);
  for (; row + 2 <= rows; row += 2) some(std::integral_constant<int, 2>(), row);
  if (row < rows) some(std::integral_constant<int, 1>(), row);
}

// Quantizes rows, in whole vectors; those past `count`, up to a multiple of kLanes, become zeros.
void quantize_rows(const AttentionJob& job, const char* rows, int64_t token, int64_t count,
                   uint8_t* out, int64_t out_row, float* scales) {
  for (int64_t first = 0; first < count; first += kLanes) {
    const auto row = [&](int i) { return rows + (first + i) * token; };
    const int64_t real = count - first;
    Vec magnitudes[kLanes];
    for (int i = 0; i < kLanes; ++i)
      magnitudes[i] =
          i < real ? max_magnitude_of_row(splat(0.f), row(i), job.bf16, job.dims) : splat(0.f);
    alignas(64) float largest[kLanes], inverse_scales[kLanes];
    largest_lanes(magnitudes, largest);
    scales_for(load(largest), inverse_scales, scales + first);
    for (int i = 0; i < kLanes; ++i)
      quantize_row(i < real ? row(i) : row(0), job.bf16, job.dims,
                   {i < real ? inverse_scales[i] : 0.f, 0.f}, out + (first + i) * out_row);
  }
}

// Quantizes a tile's queries; `start` becomes −128 Σ q, as keys have a zero point of 128.
template <int kWide>
void load_queries(const AttentionJob& job, const char* q, int64_t count, uint8_t* rows, float* tile,
                  float* scales, __m512i (&start)[kWide]) {
  const int64_t words = int8_words(job.dims), row_bytes = int8_row_bytes(job.dims);
  const __m512i zero_point = _mm512_set1_epi8(static_cast<char>(kZeroPoint));
  quantize_rows(job, q, job.q.token, count, rows, row_bytes, scales);
  for (int v = 0; v < kWide; ++v) {
    Ints sum = (Ints)_mm512_setzero_si512();
    for (int64_t w = 0; w < words; w += kLanes) {
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i)
        square[i] = load_unaligned(
            reinterpret_cast<const float*>(rows + (v * kLanes + i) * row_bytes + w * 4));
      transpose(square);
      for (int i = 0; i < kLanes && w + i < words; ++i) {
        const __m512i four = _mm512_xor_si512(_mm512_castps_si512(square[i]), zero_point);
        _mm512_store_si512(tile + ((w + i) * kWide + v) * kLanes, four);
        sum = (Ints)_mm512_dpbusd_epi32((__m512i)sum, zero_point, four);
      }
    }
    start[v] = _mm512_sub_epi32(_mm512_setzero_si512(), (__m512i)sum);
  }
}

// Turns scores of one vector of queries into probabilities, 2^(score · factor + shift), four keys
// to a word; returns their sums.
template <int kWide>
LC_INLINE __m512i exponentiate(float* scores, int64_t keys, Vec factor, Vec shift) {
  const __m512i ones = _mm512_set1_epi32(0x01010101);
  Ints total = (Ints)_mm512_setzero_si512();
  const auto of = [&](int64_t key) {
    return approximate_exp2(fma(load(scores + key * kWide * kLanes), factor, shift));
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
  float* scales;   // [vector][lane]
  float* scores;   // [key][vector][lane]
  float* sums;     // [output][vector][lane]
  uint8_t* rows;   // [query][byte]
};

// `count` queries at `q` against all keys of a head.
template <int kWide>
void run_tile(const AttentionJob& job, const Head& head, const char* q, char* out, int64_t count,
              const Tile& tile) {
  const int64_t words = int8_words(job.dims), key_bytes = int8_row_bytes(job.dims);
  __m512i start[kWide], zeros[kWide];
  load_queries<kWide>(job, q, count, tile.rows, tile.queries, tile.scales, start);
  Vec factor[kWide], largest[kWide], total[kWide];
  for (int v = 0; v < kWide; ++v) {
    factor[v] = mul(load(tile.scales + v * kLanes), splat(job.scale * kLog2E));
    largest[v] = splat(-INFINITY);
    total[v] = splat(0.f);
    zeros[v] = _mm512_setzero_si512();
  }
  const float to_one = log2f(kOne);
  for (int64_t b = 0; b < key_blocks(job.keys); ++b) {
    const auto block = key_block<4>(job.keys, b);
    const int64_t from = block.from, some = block.count;  // C++17 captures no structured bindings
    Vec rescale[kWide];
    for (int v = 0; v < kWide; ++v) rescale[v] = largest[v];
    products<true>(head.keys + from * key_bytes, key_bytes, 4, some, words, tile.queries, start,
                   [&](int64_t key, int v, Vec sum) {
                     const Vec score = mul(sum, splat(head.key_scales[from + key]));
                     store(tile.scores + (key * kWide + v) * kLanes, score);
                     largest[v] = max(largest[v], score);
                   });
    for (int v = 0; v < kWide; ++v) {
      const Vec lower = mul(largest[v], factor[v]);
      rescale[v] =
          b == 0 ? splat(0.f) : exp2(max(splat(-200.f), sub(mul(rescale[v], factor[v]), lower)));
      const __m512i sum =
          exponentiate<kWide>(tile.scores + v * kLanes, some, factor[v], sub(splat(to_one), lower));
      total[v] = fma(total[v], rescale[v], _mm512_cvtepi32_ps(sum));
    }
    products<false>(head.values + from * job.outputs, 4, job.outputs * 4, job.outputs,
                    int8_words(some), tile.scores, zeros, [&](int64_t output, int v, Vec sum) {
                      float* at = tile.sums + (output * kWide + v) * kLanes;
                      store(at, b == 0 ? sum : fma(load(at), rescale[v], sum));
                    });
  }
  // Queries and keys that are not finite can no longer be seen in the integers.
  for (int v = 0; v < kWide; ++v)
    total[v] = div(splat(1.f), fma(factor[v], splat(0.f), add(total[v], splat(head.poison))));
  write_rows(job, tile.sums, total, out, count,
             [&](Vec row, int64_t output) { return mul(row, load(head.value_scales + output)); });
}

// Quantizes V per column; `scales` are padded to whole vectors.
void quantize_values(const AttentionJob& job, const char* v, int8_t* values, float* scales) {
  const auto row = [&](int64_t key) { return v + key * job.v.token; };
  for (int64_t c = 0; c < job.outputs; c += kLanes) {
    Vec largest = splat(0.f);
    for (int64_t key = 0; key < job.keys; ++key)
      largest = max_magnitude(largest, load_row(row(key), job.bf16, c, job.outputs));
    alignas(64) float each[kLanes];
    scales_for(largest, each, scales + c);
    const Vec inverse_scale = load(each);
    const int64_t some = job.outputs - c < kLanes ? job.outputs - c : kLanes;
    const __mmask16 kept = static_cast<__mmask16>((1u << some) - 1u);
    for (int64_t key = 0; key < job.keys; key += 4) {
      Vec x[4];
      for (int i = 0; i < 4; ++i)
        x[i] = key + i < job.keys
                   ? mul(load_row(row(key + i), job.bf16, c, job.outputs), inverse_scale)
                   : splat(0.f);
      _mm512_mask_storeu_epi32(values + (key * job.outputs + c * 4), kept,
                               interleaved<true>(x[0], x[1], x[2], x[3]));
    }
  }
}

}  // namespace

void attention_int8(const AttentionJob& job, int64_t slice, float* scratch) {
  const AttentionInt8Layout layout = attention_int8_layout(job);
  const Tile tile{scratch + layout.queries, scratch + layout.scales, scratch + layout.scores,
                  scratch + layout.sums, reinterpret_cast<uint8_t*>(scratch + layout.rows)};
  auto* keys = reinterpret_cast<uint8_t*>(scratch + layout.keys);
  auto* values = reinterpret_cast<int8_t*>(scratch + layout.values);
  float *key_scales = scratch + layout.key_scales, *value_scales = scratch + layout.value_scales;
  Head head{keys, key_scales, values, value_scales, 0.f};
  quantize_rows(job, head_of(job, job.k, slice), job.k.token, job.keys, keys,
                int8_row_bytes(job.dims), key_scales);
  for (int64_t key = 0; key < job.keys; ++key) head.poison += key_scales[key] * 0.f;
  quantize_values(job, head_of(job, job.v, slice), values, value_scales);
  for_tiles<kVectors>(job, slice, 0,
                      [&](auto wide, int64_t, const char* q, char* out, int64_t count) {
                        run_tile<wide()>(job, head, q, out, count, tile);
                      });
}

LC_END_VNNI
#else
void attention_int8(const AttentionJob&, int64_t, float*) {}  // never called
#endif

}  // namespace LC_ISA
}  // namespace lc
