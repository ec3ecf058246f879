// The kernel behind rms_norm.
#include "rms_norm/kernel.h"

#include "simd/rows_in.h"
#include "simd/rows_out.h"

namespace lc {
namespace LC_ISA {
namespace {

// Σ x² over a row.
LC_INLINE float squares(const RmsNormJob& job, const char* row) {
  Vec even = splat(0.f), odd = splat(0.f);
  for (int64_t d = 0; d < job.dims; d += 2 * kLanes) {
    const Vec a = load_row(row, job.bf16, d, job.dims);
    const Vec b = load_row(row, job.bf16, d + kLanes, job.dims);
    even = fma(a, a, even);
    odd = fma(b, b, odd);
  }
  alignas(64) float lanes[kLanes];
  store(lanes, add(even, odd));
  float sum = 0.f;
  for (const float lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void rms_norm(const RmsNormJob& job, int64_t from, int64_t to) {
  const int64_t bytes = job.dims * (job.bf16 ? 2 : 4);
  for (int64_t r = from; r < to; ++r) {
    const char* row = static_cast<const char*>(job.x) + r * bytes;
    char* out = static_cast<char*>(job.out) + r * bytes;
    const Vec scale =
        splat(1.f / sqrtf(squares(job, row) / static_cast<float>(job.dims) + job.eps));
    const char* weight = reinterpret_cast<const char*>(job.weight);
    for (int64_t d = 0; d < job.dims; d += kLanes) {
      const Vec x = mul(load_row(row, job.bf16, d, job.dims), scale);
      const int64_t left = job.dims - d;
      write_row(out, job.bf16, d, mul(x, load_row(weight, false, d, job.dims)),
                left < kLanes ? left : kLanes);
    }
  }
}

}  // namespace LC_ISA
}  // namespace lc
