// The kernel behind masked_linear: common/masked_product.h, then bias and activation.
#include "masked_linear/kernel.h"

#include "common/masked_product.h"
#include "common/tile.h"
#include "simd/activate.h"
#include "simd/rows_out.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

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
                           write_row(job.out, job.x.bf16, (first + at + i) * width + from + c,
                                     square[i], some);
                       }
                     }
                   });
}

}  // namespace LC_ISA
}  // namespace lc
