// The kernel behind token_nll: common/masked_product.h into the softmax of common/tile.h.
#include "token_nll/kernel.h"

#include "common/masked_product.h"
#include "common/tile.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {
namespace {

template <bool kMoment>
void score(const TokenJob& job, const LayerTask& task, float* scratch, Softmax* softmax) {
  int64_t targets[kTaskRows];
  for (int64_t i = 0; i < kTaskRows; ++i)
    targets[i] = i < task.rows ? job.targets[task.row + i] : -1;
  for_each_product(job.weight, job.hidden, task, scratch,
                   [&](float* sums, int64_t from, int64_t entries, int64_t row, int vectors) {
                     const float* bias = job.bias == nullptr ? nullptr : job.bias + from;
                     take_in<kMoment>(
                         sums, from, entries, targets + row, softmax[row / kTile],
                         [bias](Vec sum, int64_t c, int) {
                           if (bias != nullptr) sum = add(sum, splat(bias[c]));
                           return mul(sum, splat(kLog2E));
                         },
                         vectors);
                   });
}

}  // namespace

void token_nll(const TokenJob& job, const LayerTask& task, float* scratch) {
  Softmax softmax[kTaskRows / kTile];
  for (Softmax& one : softmax) start(one);
  if (job.entropy)
    score<true>(job, task, scratch, softmax);
  else
    score<false>(job, task, scratch, softmax);
  const int64_t row = task.sub_model * job.hidden.rows + task.row;
  const int64_t all = job.hidden.sub_models * job.hidden.rows;
  SoftmaxPart* parts = job.parts + task.from / kSegment * all + row;
  for (int64_t i = 0; i < task.rows; ++i) {
    const Softmax& one = softmax[i / kTile];
    const int64_t lane = i % kTile;
    parts[i] = {one.largest[lane], one.total[lane], one.moment[lane], one.chosen[lane]};
  }
}

}  // namespace LC_ISA
}  // namespace lc
