// The kernels behind WinogradPlan; see winograd/kernel.h for the idea.
#include "winograd/kernel.h"

#include "common/int8_product.h"
#include "simd/activate.h"
#include "simd/rows_in.h"
#include "simd/rows_out.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {
namespace {

constexpr int kBlock = 2 * kLanes;
// Tiles multiplied with a block of outputs at once: their sums fill the registers.
constexpr int kRows = kLanes == 16 ? 12 : 4;

// What the product at a position multiplies: floats, pairs of bfloat16 channels, or fours of int8.
struct Int8 {};

struct Floats {
  static constexpr int64_t kChannels = kLanes;  // of a vector
  static constexpr int64_t kStep = 1;           // of one multiplication
  static constexpr int64_t kBytes = 4;

  LC_INLINE void put(char* at, Vec x) { store(reinterpret_cast<float*>(at), x); }
  LC_INLINE Vec each(const char* at) { return splat(*reinterpret_cast<const float*>(at)); }
  LC_INLINE Vec add_product(Vec x, Vec w, Vec sum) { return fma(x, w, sum); }
};

#if defined(__AVX512BF16__)
struct Pairs {
  static constexpr int64_t kChannels = 2 * kLanes;
  static constexpr int64_t kStep = 2;
  static constexpr int64_t kBytes = 2;

  LC_INLINE void put(char* at, Vec x) {
    const __m256bh bits = _mm512_cvtneps_pbh(x);
    memcpy(at, &bits, sizeof bits);
  }
  LC_INLINE Vec each(const char* at) {
    int two;
    memcpy(&two, at, sizeof two);
    return _mm512_castsi512_ps(_mm512_set1_epi32(two));
  }
  LC_INLINE Vec add_product(Vec x, Vec w, Vec sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
  }
};
#endif

// Bᵀ d of four values.
LC_INLINE void input_sums(const Vec& a, const Vec& b, const Vec& c, const Vec& d, Vec* out,
                          int step) {
  out[0] = sub(a, c);
  out[step] = add(b, c);
  out[2 * step] = sub(c, b);
  out[3 * step] = sub(b, d);
}

// G g of three weights.
LC_INLINE void weight_sums(const Vec& a, const Vec& b, const Vec& c, Vec* out, int step) {
  const Vec half = splat(0.5f), ends = mul(add(a, c), half), middle = mul(b, half);
  out[0] = a;
  out[step] = add(ends, middle);
  out[2 * step] = sub(ends, middle);
  out[3 * step] = c;
}

// An output's weights at all positions, for a vector of channels; zeros past the last output.
template <class Put>
LC_INLINE void transform_kernel(const WinogradLayer& layer, const char* weight, int64_t output,
                                int64_t channel, const Put& put) {
  const int64_t row = layer.channels * (layer.bf16 ? 2 : 4);
  Vec g[9], sums[12];
  for (int tap = 0; tap < 9; ++tap)
    g[tap] = output < layer.outputs
                 ? load_row(weight + (output * 9 + tap) * row, layer.bf16, channel, layer.channels)
                 : splat(0.f);
  for (int x = 0; x < 3; ++x) weight_sums(g[x], g[3 + x], g[6 + x], sums + x, 3);
  for (int y = 0; y < 4; ++y) {
    Vec all[4];
    weight_sums(sums[3 * y], sums[3 * y + 1], sums[3 * y + 2], all, 1);
    for (int x = 0; x < 4; ++x) put(4 * y + x, all[x]);
  }
}

template <class F>
void transform_weights(const WinogradLayer& layer, const char* weight, int64_t block, char* out) {
  const int64_t position_bytes = layer.blocks() * layer.block_bytes();
  for (int64_t c = 0; c < layer.padded_channels(); c += F::kChannels)
    for (int half = 0; half < 2; ++half) {
      alignas(64) char rows[kPositions][kLanes][kLanes * 4];  // [position][output][channel]
      for (int i = 0; i < kLanes; ++i) {
        const int64_t output = block * kBlock + half * kLanes + i;
        for (int64_t v = 0; v < F::kChannels; v += kLanes)
          transform_kernel(layer, weight, output, c + v, [&](int position, const Vec& x) {
            F::put(rows[position][i] + v * F::kBytes, x);
          });
      }
      for (int p = 0; p < kPositions; ++p) {
        Vec square[kLanes];
        for (int i = 0; i < kLanes; ++i)
          square[i] = load(reinterpret_cast<const float*>(rows[p][i]));
        transpose(square);
        float* to =
            reinterpret_cast<float*>(out + p * position_bytes + block * layer.block_bytes());
        for (int i = 0; i < kLanes; ++i)
          store(to + (c / F::kStep + i) * kBlock + half * kLanes, square[i]);
      }
    }
}

// The same in int8; `wide` is scratch.
void quantize_weights(const WinogradLayer& layer, const char* weight, int64_t block, char* out,
                      int32_t* compensation, float* scales, float* wide) {
  const int64_t padded = layer.padded_channels();
  int8_t* row = reinterpret_cast<int8_t*>(wide + kPositions * padded);
  for (int c = 0; c < kBlock; ++c) {
    Vec largest[kPositions];
    for (int p = 0; p < kPositions; ++p) largest[p] = splat(0.f);
    for (int64_t d = 0; d < padded; d += kLanes)
      transform_kernel(layer, weight, block * kBlock + c, d, [&](int position, const Vec& x) {
        largest[position] = max_magnitude(largest[position], x);
        store(wide + position * padded + d, x);
      });
    for (int p = 0; p < kPositions; ++p) {
      const int64_t of_block = p * layer.blocks() + block;
      const Quantization quantization = quantization_for(largest_lane(largest[p]));
      int8_t* to = reinterpret_cast<int8_t*>(out) + of_block * layer.block_bytes() + c * 4;
      for (int64_t d = 0; d < padded; d += kLanes)
        store_int8(row + d, mul(load(wide + p * padded + d), splat(quantization.inverse_scale)));
      int32_t sum = 0;
      for (int64_t d = 0; d < padded; ++d) sum += row[d];
      for (int64_t d = 0; d < padded; d += 4) memcpy(to + d * kBlock, row + d, 4);
      compensation[of_block * kBlock + c] = -kZeroPoint * sum;
      scales[of_block * kBlock + c] = quantization.scale;
    }
  }
}

// The pixels under a tile, or zeros outside of the image.
struct Patch {
  const char* pixel[kPositions];
};

// Walks over tiles, image by image and row by row.
struct Cursor {
  int64_t image, down, across;

  LC_INLINE Cursor at(const WinogradJob& job, int64_t tile) {
    const int64_t row = tile / job.tiles_across();
    return {row / job.tiles_down(), row % job.tiles_down(), tile % job.tiles_across()};
  }
  LC_INLINE void next(const WinogradJob& job, Cursor& cursor) {
    if (++cursor.across < job.tiles_across()) return;
    cursor.across = 0;
    if (++cursor.down < job.tiles_down()) return;
    cursor.down = 0;
    ++cursor.image;
  }
};

LC_INLINE void find_pixels(const WinogradJob& job, const Cursor& tile, const char* zeros,
                           Patch& patch) {
  const int64_t top = tile.down * 2 - job.padding[0], left = tile.across * 2 - job.padding[1];
  const int64_t pixel_bytes = job.layer.channels * (job.layer.bf16 ? 2 : 4);
  const char* image =
      static_cast<const char*>(job.x) + tile.image * job.height * job.width * pixel_bytes;
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t j = 0; j < 4; ++j) {
      const int64_t y = top + i, x = left + j;
      const bool inside = static_cast<uint64_t>(y) < static_cast<uint64_t>(job.height) &&
                          static_cast<uint64_t>(x) < static_cast<uint64_t>(job.width);
      patch.pixel[4 * i + j] = inside ? image + (y * job.width + x) * pixel_bytes : zeros;
    }
}

// A tile's inputs at all positions: put(position, channel, values) takes a vector of channels.
template <class Put>
LC_INLINE void transform_patch(const Patch& patch, const WinogradLayer& layer, const Put& put) {
  for (int64_t c = 0; c < layer.padded_channels(); c += kLanes) {
    Vec sums[kPositions];
    for (int x = 0; x < 4; ++x) {
      Vec d[4];
      for (int y = 0; y < 4; ++y)
        d[y] = load_row(patch.pixel[4 * y + x], layer.bf16, c, layer.channels);
      input_sums(d[0], d[1], d[2], d[3], sums + x, 4);
    }
    for (int y = 0; y < 4; ++y) {
      Vec row[4];
      const Vec* s = sums + 4 * y;
      input_sums(s[0], s[1], s[2], s[3], row, 1);
      for (int x = 0; x < 4; ++x) put(4 * y + x, c, row[x]);
    }
  }
}

// The transformed inputs of some tiles.
struct Tiles {
  int64_t count, row_bytes;
  char* rows;     // [position][tile]
  float* scales;  // in int8, [tile][position]
  float* wide;    // of one tile before it is quantized, [position][channel]

  char* row(int64_t position, int64_t tile) const {
    return rows + (position * count + tile) * row_bytes;
  }
};

template <class F>
LC_INLINE void transform_tile(F, const Patch& patch, const WinogradLayer& layer, int64_t tile,
                              const Tiles& tiles) {
  char* out = tiles.row(0, tile);
  const int64_t position_bytes = tiles.count * tiles.row_bytes;
  transform_patch(patch, layer, [&](int position, int64_t channel, const Vec& x) {
    F::put(out + position * position_bytes + channel * F::kBytes, x);
  });
}

LC_INLINE void transform_tile(Int8, const Patch& patch, const WinogradLayer& layer, int64_t tile,
                              const Tiles& tiles) {
  const int64_t padded = layer.padded_channels();
  transform_patch(patch, layer, [&](int position, int64_t channel, const Vec& x) {
    store(tiles.wide + position * padded + channel, x);
  });
  Vec magnitudes[kPositions];
  for (int p = 0; p < kPositions; ++p) {
    magnitudes[p] = splat(0.f);
    for (int64_t c = 0; c < padded; c += kLanes)
      magnitudes[p] = max_magnitude(magnitudes[p], load(tiles.wide + p * padded + c));
  }
  alignas(64) float largest[kPositions], inverse_scales[kPositions];
  largest_lanes(magnitudes, largest);
  for (int p = 0; p < kPositions; p += kLanes)
    scales_for(load(largest + p), inverse_scales + p, tiles.scales + tile * kPositions + p);
  for (int p = 0; p < kPositions; ++p) {
    uint8_t* row = reinterpret_cast<uint8_t*>(tiles.row(p, tile));
    const float* wide = tiles.wide + p * padded;
    store_uint8_row(row, padded,
                    [&](int64_t c) { return mul(load(wide + c), splat(inverse_scales[p])); });
  }
}

// Sums of kCount tiles and a block of outputs, at one position.
template <class F, int kCount>
LC_INLINE void multiply(const char* x, int64_t row_bytes, const float* weights, int64_t channels,
                        float* out) {
  Vec low[kCount], high[kCount];
  for (int r = 0; r < kCount; ++r) low[r] = high[r] = splat(0.f);
  for (int64_t c = 0; c < channels; c += F::kStep, weights += kBlock) {
    const Vec w0 = load(weights), w1 = load(weights + kLanes);
    for (int r = 0; r < kCount; ++r) {
      const Vec each = F::each(x + r * row_bytes + c * F::kBytes);
      low[r] = F::add_product(each, w0, low[r]);
      high[r] = F::add_product(each, w1, high[r]);
    }
  }
  for (int r = 0; r < kCount; ++r) {
    store(out + r * kBlock, low[r]);
    store(out + r * kBlock + kLanes, high[r]);
  }
}

// Results at a position; `tile_scales` are the tile's scales in int8.
template <class F>
LC_INLINE Vec result(F, const WinogradJob&, const float* at, const float*, int, int64_t) {
  return load(at);
}
LC_INLINE Vec result(Int8, const WinogradJob& job, const float* at, const float* tile_scales,
                     int position, int64_t output) {
  const float* scales = job.scales + position * job.layer.blocks() * kBlock + output;
  const Vec sums = load_sums(reinterpret_cast<const int32_t*>(at));
  return mul(mul(sums, splat(tile_scales[position])), load_unaligned(scales));
}

// The four outputs of a tile, of one block, from its results at the 16 positions.
template <class F>
LC_INLINE void write_tile(F kind, const WinogradJob& job, const Cursor& tile, const float* results,
                          const float* tile_scales, int64_t block) {
  constexpr int kPosition = kRows * kBlock;
  const int64_t outputs = job.layer.outputs;
  const int64_t y = tile.down * 2, x = tile.across * 2;
  const int64_t pixel = (tile.image * job.out_height + y) * job.out_width + x;
  const bool below = y + 1 < job.out_height, right = x + 1 < job.out_width;
  for (int64_t c = block * kBlock; c < outputs && c < (block + 1) * kBlock; c += kLanes) {
    Vec sums[8];
    for (int i = 0; i < 4; ++i) {
      const auto at = [&](int position) {
        const float* of_tile = results + (c - block * kBlock) + position * kPosition;
        return result(kind, job, of_tile, tile_scales, position, c);
      };
      const Vec m1 = at(4 + i), m2 = at(8 + i);
      sums[i] = add(add(at(i), m1), m2);
      sums[4 + i] = sub(sub(m1, m2), at(12 + i));
    }
    const Vec bias = load_unaligned(job.bias + c);
    const int64_t some = outputs - c < kLanes ? outputs - c : kLanes;
    for (int row = 0; row < 2; ++row) {
      if (row == 1 && !below) break;
      const Vec* s = sums + 4 * row;
      const Vec middle = add(s[1], bias);
      const int64_t at = (pixel + row * job.out_width) * outputs + c;
      const auto write = [&](int64_t output, Vec sum) {
        write_row(job.out, job.layer.bf16, output, activate(job.activation, sum), some);
      };
      write(at, add(add(s[0], middle), s[2]));
      if (right) write(at + outputs, sub(sub(middle, s[2]), s[3]));
    }
  }
}

// Results of kCount tiles and a block of outputs at all positions, which fit a first-level cache.
template <int kCount, class F>
LC_INLINE void multiply_positions(F, const WinogradJob& job, const Tiles& tiles, int64_t tile,
                                  int64_t block, float* results) {
  const WinogradLayer& layer = job.layer;
  for (int64_t p = 0; p < kPositions; ++p) {
    const char* weights = job.weights + (p * layer.blocks() + block) * layer.block_bytes();
    multiply<F, kCount>(tiles.row(p, tile), layer.row_bytes(),
                        reinterpret_cast<const float*>(weights), layer.padded_channels(),
                        results + p * kRows * kBlock);
  }
}

template <int kCount>
LC_INLINE void multiply_positions(Int8, const WinogradJob& job, const Tiles& tiles, int64_t tile,
                                  int64_t block, float* results) {
  const WinogradLayer& layer = job.layer;
  const int8_t* weights = reinterpret_cast<const int8_t*>(job.weights);
  for (int64_t p = 0; p < kPositions; ++p) {
    const int64_t of_block = p * layer.blocks() + block;
    multiply_rows<kCount>(job.vnni, reinterpret_cast<const uint8_t*>(tiles.row(p, tile)),
                          layer.row_bytes(), weights + of_block * layer.block_bytes(),
                          layer.padded_channels() / 4, job.compensation + of_block * kBlock,
                          reinterpret_cast<int32_t*>(results + p * kRows * kBlock));
  }
}

template <class F>
void run(F kind, const WinogradJob& job, int64_t first, int64_t count, float* scratch) {
  const WinogradLayer& layer = job.layer;
  float* results = scratch;  // [position][tile][output]
  Tiles tiles{count, layer.row_bytes(), reinterpret_cast<char*>(results + kMaxResults), nullptr,
              nullptr};
  char* zeros = tiles.row(kPositions, 0);
  memset(zeros, 0, static_cast<size_t>(layer.channels) * 4);
  tiles.wide = reinterpret_cast<float*>(zeros) + WinogradLayer::round_up(layer.channels, 16);
  tiles.scales = tiles.wide + kPositions * layer.padded_channels();
  const Cursor start = Cursor::at(job, first);
  Cursor tile = start;
  for (int64_t t = 0; t < count; ++t, Cursor::next(job, tile)) {
    Patch patch;
    find_pixels(job, tile, zeros, patch);
    transform_tile(kind, patch, layer, t, tiles);
  }
  for (int64_t block = 0; block < layer.blocks(); ++block) {
    tile = start;
    for (int64_t t = 0; t < count;) {
      const int64_t left = count - t;
      int64_t now = 1;
      if (left >= kRows) {
        now = kRows;
        multiply_positions<kRows>(kind, job, tiles, t, block, results);
      } else if (left >= 4) {
        now = 4;
        multiply_positions<4>(kind, job, tiles, t, block, results);
      } else {
        multiply_positions<1>(kind, job, tiles, t, block, results);
      }
      for (int64_t i = 0; i < now; ++i, Cursor::next(job, tile))
        write_tile(kind, job, tile, results + i * kBlock, tiles.scales + (t + i) * kPositions,
                   block);
      t += now;
    }
  }
}

}  // namespace

void winograd_weights(const WinogradLayer& layer, const void* weight, int64_t block, char* out,
                      int32_t* compensation, float* scales, float* scratch) {
  const char* given = static_cast<const char*>(weight);
  if (layer.multiplied == Multiplied::int8)
    return quantize_weights(layer, given, block, out, compensation, scales, scratch);
#if defined(__AVX512BF16__)
  if (layer.multiplied == Multiplied::pairs)
    return transform_weights<Pairs>(layer, given, block, out);
#endif
  transform_weights<Floats>(layer, given, block, out);
}

void winograd_tiles(const WinogradJob& job, int64_t first, int64_t count, float* scratch) {
  if (job.layer.multiplied == Multiplied::int8) return run(Int8{}, job, first, count, scratch);
#if defined(__AVX512BF16__)
  if (job.layer.multiplied == Multiplied::pairs) return run(Pairs{}, job, first, count, scratch);
#endif
  run(Floats{}, job, first, count, scratch);
}

}  // namespace LC_ISA
}  // namespace lc
