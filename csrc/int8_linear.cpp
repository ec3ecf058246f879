// The kernels behind Int8LinearPlan; see int8_linear.h for the idea.
#include "int8_linear.h"

#include "int8_outputs.h"

namespace lc {
namespace LC_ISA {

namespace {

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

// (x − mean) / √(variance + ε) · weight + bias, as floats.
LC_INLINE void normalise(const char* row, bool bits16, int64_t count, const RowNorm& norm,
                         float* out) {
  Vec sum = splat(0.f), squares = splat(0.f);
  for (int64_t i = 0; i < count; i += kLanes) sum = add(sum, load_row(row, bits16, i, count));
  const float each = 1.f / static_cast<float>(count);
  const Vec mean = splat(sum_of_lanes(sum) * each);
  for (int64_t i = 0; i < count; i += kLanes) {
    Vec apart = sub(load_row(row, bits16, i, count), mean);
    if (i + kLanes > count) apart = select((1u << (count - i)) - 1u, apart, splat(0.f));
    store(out + i, apart);
    squares = fma(apart, apart, squares);
  }
  const Vec scale = splat(1.f / sqrtf(sum_of_lanes(squares) * each + norm.epsilon));
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec weight = load_unaligned(norm.weight + i), bias = load_unaligned(norm.bias + i);
    store(out + i, fma(mul(load(out + i), scale), weight, bias));
  }
}

}  // namespace

void int8_weights(const Int8Layer& layer, const void* weight, bool bits16, int64_t block,
                  int8_t* out, int32_t* begin, float* steps, float* scratch) {
  int8_t* row = reinterpret_cast<int8_t*>(scratch);
  for (int64_t c = 0; c < kOutputs; ++c) {
    const int64_t output = block * kOutputs + c;
    memset(row, 0, static_cast<size_t>(layer.row_bytes()));
    if (output < layer.outputs) {
      const char* given =
          static_cast<const char*>(weight) + output * layer.inputs * (bits16 ? 2 : 4);
      const Step step = step_of_row(given, bits16, layer.inputs);
      for (int64_t i = 0; i < layer.inputs; i += kLanes)
        store_whole(row + i, mul(load_row(given, bits16, i, layer.inputs), splat(step.per_one)));
      steps[c] = step.worth;
    }
    int32_t sum = 0;
    for (int64_t i = 0; i < layer.quads() * 4; ++i) {
      out[(i / 4 * kOutputs + c) * 4 + i % 4] = row[i];
      sum += row[i];
    }
    begin[c] = -kUp * sum;
  }
}

void int8_rows(const Int8Job& job, int64_t first, int64_t rows, float* scratch) {
  float worth[kInt8Rows];
  const int64_t element = job.bits16 ? 2 : 4;
  int64_t given_bytes = job.layers[0].inputs * element;
  const char* given = static_cast<const char*>(job.x) + first * given_bytes;
  uint8_t* x = reinterpret_cast<uint8_t*>(scratch);
  float* normed = scratch + kInt8Rows * job.widest_row_bytes() / 4;
  float* between = job.norm == nullptr ? normed : normed + job.layers[0].row_bytes();
  for (int64_t i = 0; i < job.count; ++i) {
    const Int8Layer& layer = job.layers[i];
    for (int64_t r = 0; r < rows; ++r) {
      const char* row = given + r * given_bytes;
      bool bits16 = job.bits16;
      if (i == 0 && job.norm != nullptr) {
        normalise(row, bits16, layer.inputs, *job.norm, normed);
        row = reinterpret_cast<const char*>(normed);
        bits16 = false;
      }
      const Step step = step_of_row(row, bits16, layer.inputs);
      round_row(row, bits16, layer.inputs, step, x + r * layer.row_bytes());
      worth[r] = step.worth;
    }
    const bool last = i + 1 == job.count;
    const RowsOut out{last ? job.out : between, job.bits16, last ? first : 0};
    run_layer(layer, job.dots, x, worth, rows, out);
    given = reinterpret_cast<const char*>(between);
    given_bytes = layer.outputs * element;
  }
}

}  // namespace LC_ISA
}  // namespace lc
