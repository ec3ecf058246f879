// The kernel behind LinearPlan; see common/shells.h for the idea and the layout.
//
// For a group of outputs whose quads fit the second-level cache and for each tile of samples:
//   blocks of dims but the last: running sums -> partial[output][sub-model][lane]
//   last block: running sums -> last[sub-model][lane]; logit = partial + last; sum += 2^logit
// Weights and bias carry the factor log2(e), but for form pairs, where it would cost them digits:
// there the logits are scaled. A "lane" is a sample of a tile. No maximum is subtracted in the
// first pass: samples whose sum leaves the safe range of float32 go through two more passes
// (maximum, then shifted sum), which write only their results, so a sample's score never depends on
// its neighbours.
#include "linear_confidence/kernel.h"

#include <math.h>

#include "common/shell_product.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {
namespace {

enum class Pass { plain, maximum, shifted };

constexpr float kLn2 = 0.69314718055994531f;
// Sums inside lost no term that float32 can represent beside them.
constexpr float kSmallest = 1e-30f, kLargest = 1e36f;

struct Scratch {
  float* tiles;    // [tile][dim][lane]
  float* partial;  // [output of the group][sub-model][lane]
  float* last;     // [sub-model + 1][lane]
  float* sums;     // [tile][sub-model][lane]
  float* chosen;   // [tile][sub-model][lane], the label's logit, or the largest
  float* shift;    // [tile][sub-model][lane], the largest logit
};

constexpr int kMaxSamples = 32;  // of a tile of either form

// The labels of one tile in ascending order, so that only the next one is compared per output.
struct TileLabels {
  int64_t label[kMaxSamples];
  uint32_t lane[kMaxSamples];
  int count, next;
  bool given;
};

// An output's sum over the last block and, if there are others, over them.
template <bool kBlocks>
LC_INLINE Vec sum_of(const float* partial, const float* last) {
  return kBlocks ? add(load(partial), load(last)) : load(last);
}

// Takes one output into the softmax of every sub-model.
template <class F, Pass kPass, bool kBlocks>
LC_INLINE void take_in(int64_t width, const float* partial, const float* last, float* sums,
                       float* shift) {
  for (int64_t j = 0; j < width; j += kLanes) {
    const Vec sum = sum_of<kBlocks>(partial + j, last + j);
    if (kPass == Pass::maximum)
      store(shift + j, max(load(shift + j), F::logit(sum)));
    else if (kPass == Pass::shifted)
      store(sums + j, add(load(sums + j), exp2(sub(F::logit(sum), load(shift + j)))));
    else
      store(sums + j, F::add_power(load(sums + j), sum));
  }
}

// Keeps an output's logit for the lanes with its label, or the largest so far without labels.
template <class F, bool kBlocks>
LC_INLINE void choose(int64_t width, const float* partial, const float* last, float* chosen,
                      bool labelled, uint32_t lanes) {
  if (labelled && lanes == 0) return;
  for (int64_t j = 0; j < width; j += kLanes) {
    const Vec x = F::logit(sum_of<kBlocks>(partial + j, last + j)), before = load(chosen + j);
    const uint32_t here = lanes >> (j / kLanes % F::kVectors * kLanes);
    store(chosen + j, labelled ? select(here, x, before) : max(before, x));
  }
}

// One tile against outputs [from, to), whose quads are in the cache.
template <class F, Pass kPass, bool kBlocks>
void run_group(const Shells& s, const Scratch& scratch, TileLabels& labels, int64_t t, int64_t from,
               int64_t to) {
  const int64_t width = s.sub_models * F::kVectors * kLanes, inner = s.blocks - 1;
  const float* tile = scratch.tiles + t * s.dims * kLanes;
  float *sums = scratch.sums + t * width, *shift = scratch.shift + t * width;
  float* chosen = scratch.chosen + t * width;
  for (int64_t b = 0; b < inner; ++b) {
    for (int64_t c = from; c < to; ++c) {
      // The store after the last shell's end touches the next output's first vector.
      float* partial = scratch.partial + (c - from) * width;
      if (b == 0) {
        accumulate_output<F>(s, b, c, tile, partial);
      } else {
        accumulate_output<F>(s, b, c, tile, scratch.last);
        for (int64_t j = 0; j < width; j += kLanes)
          store(partial + j, add(load(partial + j), load(scratch.last + j)));
      }
    }
  }
  for (int64_t c = from; c < to; ++c) {
    const float* partial = scratch.partial + (c - from) * width;
    accumulate_output<F>(s, inner, c, tile, scratch.last);
    take_in<F, kPass, kBlocks>(width, partial, scratch.last, sums, shift);
    if (kPass != Pass::plain) continue;
    uint32_t lanes = 0;
    while (labels.next < labels.count && labels.label[labels.next] == c)
      lanes |= 1u << labels.lane[labels.next++];
    choose<F, kBlocks>(width, partial, scratch.last, chosen, labels.given, lanes);
  }
}

template <class F, Pass kPass>
void run_part(const Shells& s, const Scratch& scratch, TileLabels* labels, int64_t first_tile,
              int64_t tiles) {
  for (int64_t from = 0; from < s.outputs; from += s.outputs_per_group) {
    const int64_t end = from + s.outputs_per_group;
    const int64_t to = end < s.outputs ? end : s.outputs;
    for (int64_t t = first_tile; t < first_tile + tiles; ++t) {
      if (s.blocks > 1)
        run_group<F, kPass, true>(s, scratch, labels[t], t, from, to);
      else
        run_group<F, kPass, false>(s, scratch, labels[t], t, from, to);
    }
  }
}

void sort_labels(const LinearJob& job, int64_t row, int samples, TileLabels& labels) {
  labels.count = labels.next = 0;
  labels.given = job.labels != nullptr;
  if (!labels.given) return;
  for (int lane = 0; lane < samples && row + lane < job.samples; ++lane) {
    int at = labels.count++;
    for (; at > 0 && labels.label[at - 1] > job.labels[row + lane]; --at) {
      labels.label[at] = labels.label[at - 1];
      labels.lane[at] = labels.lane[at - 1];
    }
    labels.label[at] = job.labels[row + lane];
    labels.lane[at] = static_cast<uint32_t>(lane);
  }
}

// The lanes of a tile with a sum outside of the safe range (or NaN) in any sub-model.
uint32_t doubtful(const float* sums, int64_t sub_models, int samples) {
  uint32_t lanes = 0;
  for (int64_t j = 0; j < sub_models; ++j)
    for (int lane = 0; lane < samples; ++lane) {
      const float sum = sums[j * samples + lane];
      if (!(sum > kSmallest && sum < kLargest)) lanes |= 1u << lane;
    }
  return lanes;
}

// Writes log p of one tile for some lanes. `sub_model` is the first of this part's.
void emit(const Shells& s, const LinearJob& job, int64_t sub_model, int64_t row, int samples,
          const float* sums, const float* chosen, const float* shift, uint32_t lanes) {
  for (int64_t j = 0; j < s.sub_models; ++j) {
    float* out = job.log_probs + (sub_model + s.sub_models - 1 - j) * job.samples + row;
    for (int lane = 0; lane < samples && row + lane < job.samples; ++lane) {
      if (!((lanes >> lane) & 1u)) continue;
      const int64_t i = j * samples + lane;
      const double from = shift == nullptr ? chosen[i] : static_cast<double>(chosen[i]) - shift[i];
      const double log_p = (from - log2(static_cast<double>(sums[i]))) * kLn2;
      out[lane] = static_cast<float>(log_p < 0. ? log_p : (log_p >= 0. ? 0. : log_p));
    }
  }
}

void load_samples(Wide, const LinearJob& job, int64_t row, float* tile) {
  load_tile(job.features, job.bf16, row, job.samples, job.parts[0].dims, tile);
}
#if defined(__AVX512BF16__)
void load_samples(Pairs, const LinearJob& job, int64_t row, float* tile) {
  const auto* rows = static_cast<const uint16_t*>(job.features);
  load_pair_tile(rows, row, job.samples, job.parts[0].dims, tile);
}
#endif

template <class F>
void score(const LinearJob& job, int64_t row, int64_t tiles, float* memory) {
  constexpr int64_t kMaxTiles = 64;
  constexpr int kSamples = F::kVectors * kLanes;
  TileLabels labels[kMaxTiles];
  const int64_t dims = job.parts[0].dims;
  Scratch scratch;
  scratch.tiles = memory;
  for (int64_t t = 0; t < tiles; ++t)
    load_samples(F{}, job, row + t * kSamples, scratch.tiles + t * dims * kLanes);
  memory += tiles * dims * kLanes;
  for (int64_t p = 0; p < job.part_count; ++p) {
    const Shells& s = job.parts[p];
    const int64_t width = s.sub_models * kSamples;
    scratch.sums = memory;
    scratch.chosen = scratch.sums + tiles * width;
    scratch.shift = scratch.chosen + tiles * width;
    scratch.last = scratch.shift + tiles * width;
    scratch.partial = scratch.last + width + kSamples;
    const float lowest = -3.0e38f;
    for (int64_t i = 0; i < tiles * width; ++i) {
      scratch.sums[i] = 0.f;
      scratch.chosen[i] = lowest;
      scratch.shift[i] = lowest;
    }
    for (int64_t t = 0; t < tiles; ++t) sort_labels(job, row + t * kSamples, kSamples, labels[t]);
    run_part<F, Pass::plain>(s, scratch, labels, 0, tiles);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = row + t * kSamples;
      float *sums = scratch.sums + t * width, *chosen = scratch.chosen + t * width;
      float* shift = scratch.shift + t * width;
      const uint32_t again = doubtful(sums, s.sub_models, kSamples);
      emit(s, job, p, first, kSamples, sums, chosen, nullptr, ~again);
      if (again == 0) continue;
      run_part<F, Pass::maximum>(s, scratch, labels, t, 1);
      for (int64_t i = 0; i < width; ++i) sums[i] = 0.f;
      run_part<F, Pass::shifted>(s, scratch, labels, t, 1);
      emit(s, job, p, first, kSamples, sums, chosen, shift, again);
    }
  }
}

}  // namespace

void linear_confidence(const LinearJob& job, int64_t row, int64_t tiles, float* memory) {
#if defined(__AVX512BF16__)
  if (job.parts[0].form == Form::pairs) return score<Pairs>(job, row, tiles, memory);
#endif
  score<Wide>(job, row, tiles, memory);
}

}  // namespace LC_ISA
}  // namespace lc
