// The kernels behind Int8LinearPlan; see int8_linear/kernel.h for the idea.
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

// Normalizes kCount rows, (x − mean) / √(variance + ε) · weight + bias, into rows of floats
// `stride` apart. Several at once, as each waits for its own sums.
template <int kCount>
LC_INLINE void normalize(const char* rows, int64_t row_bytes, bool bf16, int64_t count,
                         const RowNorm& norm, float* out, int64_t stride) {
  const float each = 1.f / static_cast<float>(count);
  Vec mean[kCount], squares[kCount];
  for (int r = 0; r < kCount; ++r) mean[r] = squares[r] = splat(0.f);
  for (int64_t i = 0; i < count; i += kLanes)
    for (int r = 0; r < kCount; ++r)
      mean[r] = add(mean[r], load_row(rows + r * row_bytes, bf16, i, count));
  for (int r = 0; r < kCount; ++r) mean[r] = splat(sum_of_lanes(mean[r]) * each);
  for (int64_t i = 0; i < count; i += kLanes)
    for (int r = 0; r < kCount; ++r) {
      Vec x = sub(load_row(rows + r * row_bytes, bf16, i, count), mean[r]);
      if (i + kLanes > count) x = select((1u << (count - i)) - 1u, x, splat(0.f));
      store(out + r * stride + i, x);
      squares[r] = fma(x, x, squares[r]);
    }
  Vec scale[kCount];
  for (int r = 0; r < kCount; ++r)
    scale[r] = splat(1.f / sqrtf(sum_of_lanes(squares[r]) * each + norm.epsilon));
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec weight = load_unaligned(norm.weight + i), bias = load_unaligned(norm.bias + i);
    for (int r = 0; r < kCount; ++r) {
      float* at = out + r * stride + i;
      store(at, fma(mul(load(at), scale[r]), weight, bias));
    }
  }
}

}  // namespace

void quantize_int8_weights(const Int8Layer& layer, const void* weight, bool bf16, int64_t block,
                           int8_t* out, int32_t* compensation, float* scales, float* scratch) {
  int8_t* row = reinterpret_cast<int8_t*>(scratch);
  for (int64_t c = 0; c < kOutputs; ++c) {
    const int64_t output = block * kOutputs + c;
    memset(row, 0, static_cast<size_t>(layer.row_bytes()));
    if (output < layer.outputs) {
      const char* given = static_cast<const char*>(weight) + output * layer.inputs * (bf16 ? 2 : 4);
      const Quantization to = quantization_of_row(given, bf16, layer.inputs);
      for (int64_t i = 0; i < layer.inputs; i += kLanes)
        store_int8(row + i, mul(load_row(given, bf16, i, layer.inputs), splat(to.inverse_scale)));
      scales[c] = to.scale;
    }
    int32_t sum = 0;
    for (int64_t i = 0; i < layer.quads() * 4; ++i) {
      out[(i / 4 * kOutputs + c) * 4 + i % 4] = row[i];
      sum += row[i];
    }
    compensation[c] = -kZeroPoint * sum;
  }
}

void int8_rows(const Int8Job& job, int64_t first, int64_t rows, float* scratch) {
  float row_scales[kInt8Rows];
  const int64_t element = job.bf16 ? 2 : 4;
  int64_t given_bytes = job.layers[0].inputs * element;
  const char* given = static_cast<const char*>(job.x) + first * given_bytes;
  uint8_t* x = reinterpret_cast<uint8_t*>(scratch);
  float* normed = scratch + kInt8Rows * job.widest_row_bytes() / 4;
  float* between = job.norm == nullptr ? normed : normed + kNormedRows * job.layers[0].row_bytes();
  for (int64_t i = 0; i < job.count; ++i) {
    const Int8Layer& layer = job.layers[i];
    const auto quantize = [&](int64_t r, const char* row, bool bf16) {
      const Quantization to = quantization_of_row(row, bf16, layer.inputs);
      quantize_row(row, bf16, layer.inputs, to, x + r * layer.row_bytes());
      row_scales[r] = to.scale;
    };
    if (i == 0 && job.norm != nullptr) {
      const int64_t stride = layer.row_bytes();
      for (int64_t r = 0; r < rows;) {
        const int64_t some = rows - r < kNormedRows ? 1 : kNormedRows;
        const char* row = given + r * given_bytes;
        some == 1
            ? normalize<1>(row, given_bytes, job.bf16, layer.inputs, *job.norm, normed, stride)
            : normalize<kNormedRows>(row, given_bytes, job.bf16, layer.inputs, *job.norm, normed,
                                     stride);
        for (int64_t n = 0; n < some; ++n, ++r)
          quantize(r, reinterpret_cast<const char*>(normed + n * stride), false);
      }
    } else {
      for (int64_t r = 0; r < rows; ++r) quantize(r, given + r * given_bytes, job.bf16);
    }
    const bool last = i + 1 == job.count;
    const RowsOut out{last ? job.out : between, job.bf16, last ? first : 0,
                      last ? job.added : nullptr};
    run_layer(layer, job.vnni, x, row_scales, rows, out);
    given = reinterpret_cast<const char*>(between);
    given_bytes = layer.outputs * element;
  }
}

}  // namespace LC_ISA
}  // namespace lc
