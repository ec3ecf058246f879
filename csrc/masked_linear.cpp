// The kernel behind masked_linear: masked_product.h, then bias and activation on the way out.
#include "masked_linear.h"

#include "activate.h"
#include "masked_product.h"
#include "simd.h"
#include "tile.h"

namespace lc {
namespace LC_ISA {
namespace {

// To the nearest bfloat16, ties to even, as torch rounds.
LC_INLINE uint16_t narrow(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(x == x ? rounded : 0x7FC0u);
}

// Writes `some` outputs of a row.
LC_INLINE void write(const MaskedLinearJob& job, int64_t at, Vec x, int64_t some) {
  alignas(64) float one[kLanes];
  if (job.x.bits16) {
    uint16_t* out = static_cast<uint16_t*>(job.out) + at;
    store(one, x);
    if (some == kLanes)
      for (int i = 0; i < kLanes; ++i) out[i] = narrow(one[i]);
    else
      for (int64_t i = 0; i < some; ++i) out[i] = narrow(one[i]);
    return;
  }
  float* out = static_cast<float*>(job.out) + at;
  if (some == kLanes) return store_unaligned(out, x);
  store(one, x);
  memcpy(out, one, static_cast<size_t>(some) * sizeof(float));
}

}  // namespace

void masked_linear(const MaskedLinearJob& job, const LayerTask& task, float* scratch) {
  const int64_t width = job.weight.outputs;
  const int64_t first = task.sub_model * job.x.rows + task.row;
  for_each_product(job.weight, job.x, task, scratch,
                   [&](const float* sums, int64_t from, int64_t outputs, int64_t row, int vectors) {
                     for (int v = 0; v < vectors; ++v) {
                       const int64_t at = row + v * kLanes;
                       const int64_t rows = task.rows - at < kLanes ? task.rows - at : kLanes;
                       for (int64_t c = 0; c < outputs; c += kLanes) {
                         const int64_t some = outputs - c < kLanes ? outputs - c : kLanes;
                         Vec square[kLanes];
                         for (int64_t i = 0; i < kLanes; ++i) {
                           if (i >= some) {
                             square[i] = splat(0.f);
                             continue;
                           }
                           Vec unit = load(sums + ((c + i) * kVectors + v) * kLanes);
                           if (job.bias != nullptr) unit = add(unit, splat(job.bias[from + c + i]));
                           square[i] = activate(job.activation, unit);
                         }
                         transpose(square);
                         for (int64_t i = 0; i < rows; ++i)
                           write(job, (first + at + i) * width + from + c, square[i], some);
                       }
                     }
                   });
}

}  // namespace LC_ISA
}  // namespace lc
