// The kernel behind apply_thresholds: plain loops that compilers vectorize.
#include "apply_thresholds/kernel.h"

#include "simd/philox.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {
namespace {

// A NaN saliency is below every threshold, as in torch.
template <typename Weight>
void keep_large(const Weight* pristine, Weight* live, float threshold, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    live[i] = fabsf(widen(pristine[i])) >= threshold ? pristine[i] : Weight(0);
}

template <typename Weight>
void keep_salient(const Weight* pristine, const float* saliency, Weight* live, float threshold,
                  int64_t count) {
  for (int64_t i = 0; i < count; ++i) live[i] = saliency[i] >= threshold ? pristine[i] : Weight(0);
}

template <typename Weight>
void apply(const MaskedTensor& tensor, int64_t from, int64_t to) {
  const Weight* pristine = static_cast<const Weight*>(tensor.pristine);
  Weight* live = static_cast<Weight*>(tensor.live);
  const float threshold = tensor.threshold;
  if (tensor.random) {
    float drawn[kDraw];
    for (; from < to; from += kDraw) {
      philox_uniform(static_cast<uint64_t>(from), tensor.seed, tensor.stream, drawn);
      const int64_t count = to - from < kDraw ? to - from : kDraw;
      keep_salient(pristine + from, drawn, live + from, threshold, count);
    }
  } else if (tensor.saliency != nullptr) {
    keep_salient(pristine + from, tensor.saliency + from, live + from, threshold, to - from);
  } else {
    keep_large(pristine + from, live + from, threshold, to - from);
  }
}

}  // namespace

void apply_threshold(const MaskedTensor& tensor, int64_t from, int64_t to) {
  if (tensor.bf16)
    apply<uint16_t>(tensor, from, to);
  else
    apply<float>(tensor, from, to);
}

}  // namespace LC_ISA
}  // namespace lc
