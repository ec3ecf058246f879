// The kernels behind Int8LinearPlan; see int8_linear.h for the idea.
#include "int8_linear.h"

#include <math.h>

#include "activate.h"
#include "rows_in.h"
#include "rows_out.h"
#include "simd.h"

// Part of avx512_bf16, and of most processors that have avx512: asked for where it is used.
#if defined(__AVX512F__) && defined(__GNUC__)
#define LC_DOTS __attribute__((target("avx512vnni")))
#else
#define LC_DOTS
#endif

namespace lc {
namespace LC_ISA {
namespace {

constexpr int kOutputs = 2 * kLanes;  // of a block
// Rows that meet a block of outputs at once: their sums fill the registers.
constexpr int kRowsAtOnce = 12;
// A row whose largest number is smaller counts as zeros.
constexpr float kNothing = 1e-30f;

// Numbers that a row is rounded to, and what they are worth.
struct Rounded {
  float step;     // NaN if a number of the row is not finite
  int32_t begin;  // of its sums: −128 Σ x
};

LC_INLINE float largest_lane(Vec x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(x);
#else
  alignas(64) float lanes[kLanes];
  store(lanes, x);
  float most = lanes[0];
  for (int i = 1; i < kLanes; ++i) most = lanes[i] > most ? lanes[i] : most;
  return most;
#endif
}

LC_INLINE float sum_of_lanes(Vec x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(x);
#else
  alignas(64) float lanes[kLanes];
  store(lanes, x);
  float sum = 0.f;
  for (int i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
#endif
}

// Stores whole numbers from -127 to 127. Others are in rows that are not finite: what becomes of
// them does not matter.
LC_INLINE void store_bytes(int8_t* at, Vec whole) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(whole));
  memcpy(at, &bytes, sizeof bytes);
#else
  alignas(64) float lanes[kLanes];
  store(lanes, whole);
  for (int i = 0; i < kLanes; ++i) {
    const bool fits = lanes[i] >= -127.f && lanes[i] <= 127.f;
    at[i] = fits ? static_cast<int8_t>(lanes[i]) : int8_t{0};
  }
#endif
}

// Rounds a row to whole multiples of its largest number / 127.
LC_INLINE Rounded round_row(const char* row, bool bits16, int64_t count, int8_t* out) {
  Vec most = splat(0.f), finite = splat(0.f);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec x = load_row(row, bits16, i, count);
    most = max(most, absolute(x));
    finite = fma(x, splat(0.f), finite);  // 0, or NaN
  }
  const float top = largest_lane(most);
  const Vec steps = splat(top >= kNothing ? 127.f / top : 0.f);
  Vec sum = splat(0.f);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec whole = round(mul(load_row(row, bits16, i, count), steps));
    sum = add(sum, whole);
    store_bytes(out + i, whole);
  }
  const float step = top * (1.f / 127.f) + sum_of_lanes(finite);
  return {step, step == step ? static_cast<int32_t>(sum_of_lanes(sum)) * -kUp : 0};
}

// Σ w · x of kCount rows and a block of outputs.
template <int kCount>
void multiply(const int8_t* x, int64_t row_bytes, const Rounded* rounded, const uint8_t* weights,
              int64_t quads, int32_t* sums) {
  for (int i = 0; i < kCount * kOutputs; ++i) sums[i] = rounded[i / kOutputs].begin;
  for (int64_t q = 0; q < quads; ++q, weights += kOutputs * 4)
    for (int r = 0; r < kCount; ++r) {
      const int8_t* four = x + r * row_bytes + q * 4;
      for (int c = 0; c < kOutputs; ++c)
        for (int i = 0; i < 4; ++i) sums[r * kOutputs + c] += weights[c * 4 + i] * four[i];
    }
}

// x Φ(x) to 2 parts in 10^4 of 1, a hundredth of what rounding to 8 bits costs: x/2 + |x| c q(c²)
// for c = min(|x|, 4), the minimax fit that ends at c q(c²) = 1/2.
LC_INLINE Vec rough_gelu(Vec x) {
  const Vec top = splat(4.f), a = absolute(x), c = sub(top, max(splat(0.f), sub(top, a)));
  const Vec square = mul(c, c);
  Vec q = splat(2.25882744e-08f);
  q = fma(q, square, splat(-1.58883029e-06f));
  q = fma(q, square, splat(4.77639442e-05f));
  q = fma(q, square, splat(-8.12187965e-04f));
  q = fma(q, square, splat(8.76369327e-03f));
  q = fma(q, square, splat(-6.45544156e-02f));
  q = fma(q, square, splat(3.97870272e-01f));
  return fma(mul(a, c), q, mul(x, splat(0.5f)));
}

template <Activation kActivation>
LC_INLINE Vec activated(Vec x) {
  return kActivation == Activation::gelu ? rough_gelu(x) : activate(kActivation, x);
}

// Outputs of kCount rows and a block; emit(row, output, values) takes a vector of them.
template <int kCount, Activation kActivation, class Emit>
void outputs_of(const Int8Layer& layer, const int8_t* x, const Rounded* rounded, int64_t block,
                const Emit& emit) {
  alignas(64) int32_t sums[kCount * kOutputs];
  multiply<kCount>(x, layer.row_bytes(), rounded, layer.weights + block * layer.block_bytes(),
                   layer.quads(), sums);
  for (int64_t c = 0; c < kOutputs; c += kLanes) {
    const int64_t output = block * kOutputs + c;
    if (output >= layer.outputs) return;
    const Vec steps = load_unaligned(layer.steps + output);
    const Vec bias = load_unaligned(layer.bias + output);
    for (int r = 0; r < kCount; ++r) {
      alignas(64) float whole[kLanes];
      for (int i = 0; i < kLanes; ++i) whole[i] = static_cast<float>(sums[r * kOutputs + c + i]);
      const Vec scaled = mul(load(whole), steps);
      emit(r, output, activated<kActivation>(fma(scaled, splat(rounded[r].step), bias)));
    }
  }
}

#if defined(__AVX512F__)
#if defined(__GNUC__)
using Ints = __v16si;  // GCC keeps sums of type __m512i in memory
#else
using Ints = __m512i;
#endif

// The same, four products at a time; the sums never leave the registers.
template <int kCount, Activation kActivation, class Emit>
LC_DOTS void outputs_by_dots(const Int8Layer& layer, const int8_t* x, const Rounded* rounded,
                             int64_t block, const Emit& emit) {
  const uint8_t* weights = layer.weights + block * layer.block_bytes();
  const int64_t quads = layer.quads(), row_bytes = layer.row_bytes();
  Ints low[kCount], high[kCount];
  for (int r = 0; r < kCount; ++r) low[r] = high[r] = (Ints)_mm512_set1_epi32(rounded[r].begin);
  for (int64_t q = 0; q < quads; ++q, weights += kOutputs * 4) {
    const __m512i w0 = _mm512_load_si512(weights), w1 = _mm512_load_si512(weights + 64);
    for (int r = 0; r < kCount; ++r) {
      int32_t four;
      memcpy(&four, x + r * row_bytes + q * 4, sizeof four);
      const __m512i each = _mm512_set1_epi32(four);
      low[r] = (Ints)_mm512_dpbusd_epi32((__m512i)low[r], w0, each);
      high[r] = (Ints)_mm512_dpbusd_epi32((__m512i)high[r], w1, each);
    }
  }
  const int64_t output = block * kOutputs;
  for (int half = 0; half < 2; ++half) {
    const int64_t from = output + half * kLanes;
    if (from >= layer.outputs) return;
    const Vec steps = load_unaligned(layer.steps + from), bias = load_unaligned(layer.bias + from);
    for (int r = 0; r < kCount; ++r) {
      const Vec whole = _mm512_cvtepi32_ps((__m512i)(half == 0 ? low[r] : high[r]));
      const Vec sum = fma(mul(whole, steps), splat(rounded[r].step), bias);
      emit(r, from, activated<kActivation>(sum));
    }
  }
}
#endif

template <int kCount, Activation kActivation, class Emit>
LC_INLINE void outputs_of_rows(const Int8Layer& layer, bool dots, const int8_t* x,
                               const Rounded* rounded, int64_t block, const Emit& emit) {
#if defined(__AVX512F__)
  if (dots) return outputs_by_dots<kCount, kActivation>(layer, x, rounded, block, emit);
#endif
  outputs_of<kCount, kActivation>(layer, x, rounded, block, emit);
}

template <Activation kActivation, class Emit>
void run_layer(const Int8Layer& layer, bool dots, const int8_t* x, const Rounded* rounded,
               int64_t rows, const Emit& emit) {
  for (int64_t block = 0; block < layer.blocks(); ++block)
    for (int64_t r = 0; r < rows;) {
      const auto emit_here = [&](int64_t row, int64_t output, Vec values) {
        emit(r + row, output, values);
      };
      const int8_t* from = x + r * layer.row_bytes();
      if (rows - r >= kRowsAtOnce) {
        outputs_of_rows<kRowsAtOnce, kActivation>(layer, dots, from, rounded + r, block, emit_here);
        r += kRowsAtOnce;
      } else if (rows - r >= 4) {
        outputs_of_rows<4, kActivation>(layer, dots, from, rounded + r, block, emit_here);
        r += 4;
      } else {
        outputs_of_rows<1, kActivation>(layer, dots, from, rounded + r, block, emit_here);
        r += 1;
      }
    }
}

template <class Emit>
void run(const Int8Layer& layer, bool dots, const int8_t* x, const Rounded* rounded, int64_t rows,
         const Emit& emit) {
  switch (layer.activation) {
    case Activation::relu: return run_layer<Activation::relu>(layer, dots, x, rounded, rows, emit);
    case Activation::relu6:
      return run_layer<Activation::relu6>(layer, dots, x, rounded, rows, emit);
    case Activation::gelu: return run_layer<Activation::gelu>(layer, dots, x, rounded, rows, emit);
    default: return run_layer<Activation::none>(layer, dots, x, rounded, rows, emit);
  }
}

}  // namespace

void int8_weights(const Int8Layer& layer, const void* weight, bool bits16, int64_t block,
                  uint8_t* out, float* steps, float* scratch) {
  int8_t* row = reinterpret_cast<int8_t*>(scratch);
  for (int64_t c = 0; c < kOutputs; ++c) {
    const int64_t output = block * kOutputs + c;
    memset(row, 0, static_cast<size_t>(layer.row_bytes()));
    if (output < layer.outputs) {
      const char* given =
          static_cast<const char*>(weight) + output * layer.inputs * (bits16 ? 2 : 4);
      steps[c] = round_row(given, bits16, layer.inputs, row).step;
    }
    for (int64_t i = 0; i < layer.quads() * 4; ++i)
      out[(i / 4 * kOutputs + c) * 4 + i % 4] = static_cast<uint8_t>(row[i] + kUp);
  }
}

void int8_rows(const Int8Job& job, int64_t first, int64_t rows, float* scratch) {
  Rounded rounded[kInt8Rows];
  const int64_t element = job.bits16 ? 2 : 4;
  int64_t given_bytes = job.layers[0].inputs * element;
  const char* given = static_cast<const char*>(job.x) + first * given_bytes;
  int64_t widest = 0;
  for (int64_t i = 0; i < job.count; ++i)
    if (job.layers[i].row_bytes() > widest) widest = job.layers[i].row_bytes();
  int8_t* x = reinterpret_cast<int8_t*>(scratch);
  float* between = scratch + kInt8Rows * widest / 4;
  for (int64_t i = 0; i < job.count; ++i) {
    const Int8Layer& layer = job.layers[i];
    for (int64_t r = 0; r < rows; ++r)
      rounded[r] =
          round_row(given + r * given_bytes, job.bits16, layer.inputs, x + r * layer.row_bytes());
    const int64_t outputs = layer.outputs;
    const auto left = [&](int64_t output) {
      return outputs - output < kLanes ? outputs - output : kLanes;
    };
    if (i + 1 == job.count)
      return run(layer, job.dots, x, rounded, rows, [&](int64_t r, int64_t output, Vec values) {
        write_row(job.out, job.bits16, (first + r) * outputs + output, values, left(output));
      });
    run(layer, job.dots, x, rounded, rows, [&](int64_t r, int64_t output, Vec values) {
      write_row(between, job.bits16, r * outputs + output, values, left(output));
    });
    given = reinterpret_cast<const char*>(between);
    given_bytes = outputs * element;
  }
}

}  // namespace LC_ISA
}  // namespace lc
