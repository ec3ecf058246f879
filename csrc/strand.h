// The inner loop over shells: what linear_confidence and mlp_confidence share. See shells.h.
#pragma once
#include "shells.h"
#include "simd.h"

namespace lc {
namespace LC_ISA {

// Running sums of one output over one block: out[j] after shell j.
LC_INLINE void run_strand(const Shells& s, int64_t block, int64_t output, const float* tile,
                          float* out) {
  const Strand& strand = s.strands[block * s.outputs + output];
  const char* window = reinterpret_cast<const char*>(tile + block * s.block_step * kLanes);
  const auto feature = [window](uint64_t place) {
    return load(reinterpret_cast<const float*>(window + place * 8));
  };
  Vec w0, w1, w2, w3;
  Vec sum = splat(block == 0 ? s.bias[output] : 0.f);
  for (const Quad* q = s.quads + strand.base; q < s.quads + strand.outer; ++q) {
    splat4(q->weight, w0, w1, w2, w3);
    uint64_t places;
    memcpy(&places, q->place, sizeof places);
    Vec more = mul(w0, feature(places & 0xffff));
    more = fma(w1, feature((places >> 16) & 0xffff), more);
    more = fma(w2, feature((places >> 32) & 0xffff), more);
    sum = add(sum, fma(w3, feature(places >> 48), more));
  }
  // Every quad stores the running sum where the current shell ends; the place moves on when it
  // does. Storing too often is cheaper than a branch that no predictor can learn.
  for (const Quad* q = s.quads + strand.outer; q < s.quads + strand.end; ++q) {
    splat4(q->weight, w0, w1, w2, w3);
    uint64_t places;
    memcpy(&places, q->place, sizeof places);
    const uint64_t last = places >> 48;
    Vec more = mul(w0, feature(places & 0xffff));
    more = fma(w1, feature((places >> 16) & 0xffff), more);
    more = fma(w2, feature((places >> 32) & 0xffff), more);
    sum = add(sum, fma(w3, feature(last & ~uint64_t{1}), more));
    store(out, sum);
    out += (last & 1) * kLanes;
  }
}

}  // namespace LC_ISA
}  // namespace lc
