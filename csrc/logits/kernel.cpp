// The kernel behind take_logits: classes lie across the lanes.
#include "logits/kernel.h"

#include "simd/simd.h"

namespace lc {
namespace LC_ISA {
namespace {

constexpr float kLowest = -3.0e38f;

// Logits of a row in base 2; lanes past the last class are lowest.
struct Row {
  const uint16_t *logits, *lost;
  const float* bias;
  int64_t classes;

  Vec whole(int64_t c) const {
    Vec x = load_wide(logits + c);
    if (lost != nullptr) x = add(x, load_wide(lost + c));
    if (bias != nullptr) x = add(x, load_unaligned(bias + c));
    return mul(x, splat(kLog2E));
  }
  float one(int64_t c) const {
    float x = widen(logits[c]);
    if (lost != nullptr) x += widen(lost[c]);
    if (bias != nullptr) x += bias[c];
    return x * kLog2E;
  }
  Vec at(int64_t c) const {
    if (c + kLanes <= classes) return whole(c);
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = c + i < classes ? one(c + i) : kLowest;
    return load_unaligned(lanes);
  }
};

LC_INLINE float sum_of(Vec x) {
  float lanes[kLanes], sum = 0.f;
  store_unaligned(lanes, x);
  for (float lane : lanes) sum += lane;
  return sum;
}

// x − shift, at least −200: 2^-200 is nothing beside 2^0.
LC_INLINE Vec difference(Vec x, Vec shift) { return max(splat(-200.f), sub(x, shift)); }

template <bool kMoment>
void take_row(const LogitsJob& job, int64_t r) {
  const int64_t from = r * job.classes;
  const Row row{job.logits + from, job.lost == nullptr ? nullptr : job.lost + from, job.bias,
                job.classes};
  Vec most = splat(job.largest[r]);
  for (int64_t c = 0; c < job.classes; c += kLanes) most = max(most, row.at(c));
  float lanes[kLanes], largest = kLowest;
  store_unaligned(lanes, most);
  for (float lane : lanes) largest = lane > largest ? lane : largest;
  Vec total = splat(0.f), moment = splat(0.f);
  for (int64_t c = 0; c < job.classes; c += kLanes) {
    const Vec distance = difference(row.at(c), splat(largest));
    if (kMoment) {
      const Vec power = exp2(distance);
      total = add(total, power);
      moment = fma(power, distance, moment);
    } else {
      total = add_exp2(total, distance);
    }
  }
  const float change = job.largest[r] - largest, scale = exp2f(change < -200.f ? -200.f : change);
  if (kMoment) job.moment[r] = (job.moment[r] + change * job.total[r]) * scale + sum_of(moment);
  job.total[r] = job.total[r] * scale + sum_of(total);
  job.largest[r] = largest;
  if (job.labels == nullptr) return;
  const int64_t label = job.labels[r] - job.first;
  if (label >= 0 && label < job.classes) job.chosen[r] = row.one(label);
}

}  // namespace

void take_logits(const LogitsJob& job, int64_t from, int64_t to) {
  for (int64_t r = from; r < to; ++r) {
    if (job.moment != nullptr)
      take_row<true>(job, r);
    else
      take_row<false>(job, r);
  }
}

}  // namespace LC_ISA
}  // namespace lc
