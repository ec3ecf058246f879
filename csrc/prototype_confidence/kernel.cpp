// The kernel behind PrototypePlan: common/tile.h with distances for sums.
//
// Differences are squared. |z|² + |μ|² − 2z·μ would save an instruction but lose the digits of
// small distances, and the subtraction runs in parallel with the multiply-add.
#include "prototype_confidence/kernel.h"

#include "common/tile.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {
namespace {

constexpr float kMinDistance = 1e-12f, kMinNorm = 1e-12f;  // as in the reference

// The factor from a distance or a product to a logit in base 2.
LC_INLINE Vec factor_of(const PrototypeJob& job, const float* z) {
  if (job.logit != Logit::cosine)
    return splat(job.logit == Logit::neg_sq_distance ? -job.scale : job.scale);
  Vec squares = splat(0.f);
  for (int64_t i = 0; i < job.dims * kLanes; i += kLanes)
    squares = fma(load(z + i), load(z + i), squares);
  return div(splat(job.scale), max(splat(kMinNorm), sqrt(squares)));
}

}  // namespace

void prototype_confidence(const PrototypeJob& job, int64_t row, float* memory) {
  float* features = memory;                      // [tile][vector][dim][lane]
  float* factors = features + kRows * job.dims;  // [tile][vector][lane]
  float* sums = factors + kRows;                 // [class of the block][vector][lane]
  Softmax softmax[kRows / kTile];
  int64_t labels[kRows];
  int64_t sample = row % job.samples;
  for (int64_t i = 0; i < kRows; ++i) {
    labels[i] = job.labels != nullptr ? job.labels[sample] : -1;
    sample = sample + 1 < job.samples ? sample + 1 : 0;
  }
  for (int64_t i = 0; i < kRows; i += kLanes) {
    float* z = features + i * job.dims;
    load_tile(job.features, job.bf16, row + i, job.rows, job.dims, z);
    store(factors + i, factor_of(job, z));
  }
  for (Softmax& one : softmax) start(one);
  for (int64_t from = 0; from < job.classes; from += kBlock) {
    const int64_t classes = job.classes - from < kBlock ? job.classes - from : kBlock;
    const float* prototypes = job.prototypes + packed_index(from, 0, job.dims);
    for (int64_t i = 0; i < kRows; i += kTile) {
      const float *z = features + i * job.dims, *factor = factors + i;
      Softmax& tile = softmax[i / kTile];
      if (job.logit == Logit::inverse_distance) {
        accumulate_block<Terms::squares>(z, prototypes, job.dims, classes, sums);
        take_in(sums, from, classes, labels + i, tile, [factor](Vec sum, int64_t, int v) {
          return div(load(factor + v * kLanes), max(splat(kMinDistance), sqrt(sum)));
        });
      } else {
        if (job.logit == Logit::cosine)
          accumulate_block<Terms::products>(z, prototypes, job.dims, classes, sums);
        else
          accumulate_block<Terms::squares>(z, prototypes, job.dims, classes, sums);
        take_in(sums, from, classes, labels + i, tile,
                [factor](Vec sum, int64_t, int v) { return mul(load(factor + v * kLanes), sum); });
      }
    }
  }
  for (int64_t i = 0; i < kRows; i += kTile)
    emit(softmax[i / kTile], job.labels != nullptr, job.rows - row - i, job.log_probs + row + i);
}

}  // namespace LC_ISA
}  // namespace lc
