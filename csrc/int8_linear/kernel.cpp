// The kernels behind Int8LinearPlan; see int8_linear.h for the idea.
#include "int8_linear/kernel.h"

#include "common/int8_outputs.h"

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

// Rows (x − mean) / √(variance + ε) · weight + bias as floats, `apart` from one another: some at
// once, as each waits for its own sums.
template <int kCount>
LC_INLINE void normalise(const char* rows, int64_t row_bytes, bool bits16, int64_t count,
                         const RowNorm& norm, float* out, int64_t apart) {
  const float each = 1.f / static_cast<float>(count);
  Vec mean[kCount], squares[kCount];
  for (int r = 0; r < kCount; ++r) mean[r] = squares[r] = splat(0.f);
  for (int64_t i = 0; i < count; i += kLanes)
    for (int r = 0; r < kCount; ++r)
      mean[r] = add(mean[r], load_row(rows + r * row_bytes, bits16, i, count));
  for (int r = 0; r < kCount; ++r) mean[r] = splat(sum_of_lanes(mean[r]) * each);
  for (int64_t i = 0; i < count; i += kLanes)
    for (int r = 0; r < kCount; ++r) {
      Vec x = sub(load_row(rows + r * row_bytes, bits16, i, count), mean[r]);
      if (i + kLanes > count) x = select((1u << (count - i)) - 1u, x, splat(0.f));
      store(out + r * apart + i, x);
      squares[r] = fma(x, x, squares[r]);
    }
  Vec scale[kCount];
  for (int r = 0; r < kCount; ++r)
    scale[r] = splat(1.f / sqrtf(sum_of_lanes(squares[r]) * each + norm.epsilon));
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec weight = load_unaligned(norm.weight + i), bias = load_unaligned(norm.bias + i);
    for (int r = 0; r < kCount; ++r) {
      float* at = out + r * apart + i;
      store(at, fma(mul(load(at), scale[r]), weight, bias));
    }
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
  float* between = job.norm == nullptr ? normed : normed + kNormedRows * job.layers[0].row_bytes();
  for (int64_t i = 0; i < job.count; ++i) {
    const Int8Layer& layer = job.layers[i];
    const auto round = [&](int64_t r, const char* row, bool bits16) {
      const Step step = step_of_row(row, bits16, layer.inputs);
      round_row(row, bits16, layer.inputs, step, x + r * layer.row_bytes());
      worth[r] = step.worth;
    };
    if (i == 0 && job.norm != nullptr) {
      const int64_t apart = layer.row_bytes();
      for (int64_t r = 0; r < rows;) {
        const int64_t some = rows - r < kNormedRows ? 1 : kNormedRows;
        const char* row = given + r * given_bytes;
        some == 1
            ? normalise<1>(row, given_bytes, job.bits16, layer.inputs, *job.norm, normed, apart)
            : normalise<kNormedRows>(row, given_bytes, job.bits16, layer.inputs, *job.norm, normed,
                                     apart);
        for (int64_t n = 0; n < some; ++n, ++r)
          round(r, reinterpret_cast<const char*>(normed + n * apart), false);
      }
    } else {
      for (int64_t r = 0; r < rows; ++r) round(r, given + r * given_bytes, job.bits16);
    }
    const bool last = i + 1 == job.count;
    const RowsOut out{last ? job.out : between, job.bits16, last ? first : 0,
                      last ? job.added : nullptr};
    run_layer(layer, job.dots, x, worth, rows, out);
    given = reinterpret_cast<const char*>(between);
    given_bytes = layer.outputs * element;
  }
}

}  // namespace LC_ISA
}  // namespace lc
