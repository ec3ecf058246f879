// The product of one sub-model's rows with a layer's masked weights: masked_linear and token_nll
// share it.
//
// A block of outputs is masked, widened and packed, then multiplied with all rows of the task by
// the register-tiled product of common/tile.h. No masked copy of the weights exists.
//
// Where the processor multiplies pairs of bfloat16, two dims are moved as one float: rows are laid
// out without being widened, and masked weights are narrowed again.
#pragma once
#include "common/masked_weight.h"
#include "common/tile.h"
#include "simd/activate.h"
#include "simd/philox.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

static_assert(kLanes % kGroup == 0 && kBlock % kLanes == 0, "blocks hold whole vectors of outputs");

LC_INLINE float weight_at(const MaskedWeight& weight, int64_t i) {
  return weight.bf16 ? widen(static_cast<const uint16_t*>(weight.data)[i])
                     : static_cast<const float*>(weight.data)[i];
}

LC_INLINE Vec weights_at(const MaskedWeight& weight, int64_t i) {
  return weight.bf16 ? load_wide(static_cast<const uint16_t*>(weight.data) + i)
                     : load_unaligned(static_cast<const float*>(weight.data) + i);
}

// The weights of one output that a sub-model keeps. A NaN saliency is below every threshold, as in
// torch.
LC_INLINE void mask_row(const MaskedWeight& weight, int64_t sub_model, int64_t output, float* row) {
  const bool masked = weight.thresholds != nullptr;
  const float threshold = masked ? weight.thresholds[sub_model] : 0.f;
  const int64_t first = output * weight.dims;
  float drawn[kDraw];
  for (int64_t dim = 0; dim < weight.dims; dim += kDraw) {
    const int64_t at = first + dim, left = weight.dims - dim, count = left < kDraw ? left : kDraw;
    const float* saliency = weight.saliency != nullptr ? weight.saliency + at : nullptr;
    if (weight.random) {
      philox_uniform(static_cast<uint64_t>(at), weight.seed, 0, drawn);
      saliency = drawn;
    }
    float* out = row + dim;
    int64_t d = 0;
    for (; d + kLanes <= count; d += kLanes) {
      const Vec w = weights_at(weight, at + d);
      const Vec score = saliency != nullptr ? load_unaligned(saliency + d) : absolute(w);
      store_unaligned(out + d, masked ? keep(w, score, splat(threshold)) : w);
    }
    for (; d < count; ++d) {
      const float w = weight_at(weight, at + d);
      const float score = saliency != nullptr ? saliency[d] : fabsf(w);
      out[d] = !masked || score >= threshold ? w : 0.f;
    }
  }
}

// Joins pairs of floats that hold bfloat16 values into the bits of one float, over a row.
LC_INLINE void join_pairs(float* row, int64_t pairs) {
  for (int64_t at = 0; at < pairs; at += kLanes) {
    // In locals, so that compilers vectorize the loop; a row ends in a spare vector.
    uint32_t halves[2 * kLanes], joined[kLanes];
    memcpy(halves, row + 2 * at, sizeof halves);
    // A widened bfloat16 has only a high half.
    for (int i = 0; i < kLanes; ++i) joined[i] = (halves[2 * i] >> 16) | halves[2 * i + 1];
    memcpy(row + at, joined, sizeof joined);
  }
}

// Steps of the product: dims, or pairs of them.
LC_INLINE int64_t steps_of(const MaskedWeight& weight) {
  return weight.pairs ? weight.dims / 2 : weight.dims;
}

// Packs the outputs [from, from + outputs) as a sub-model keeps them, [vector of outputs][dim]
// [output of the vector]. Rows are read one after the other.
static void pack_block(const MaskedWeight& weight, int64_t sub_model, int64_t from, int64_t outputs,
                       float* rows, float* packed) {
  const int64_t stride = row_stride(weight.dims), steps = steps_of(weight);
  for (int64_t c = 0; c < outputs; c += kLanes) {
    const int64_t some = outputs - c < kLanes ? outputs - c : kLanes;
    for (int64_t i = 0; i < some; ++i) {
      mask_row(weight, sub_model, from + c + i, rows + i * stride);
      if (weight.pairs) join_pairs(rows + i * stride, steps);
    }
    for (int64_t d = 0; d < steps; d += kLanes) {
      // Values past the dims or the outputs of the block are never used.
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i) square[i] = load(rows + i * stride + d);
      transpose(square);
      for (int64_t j = 0; j < kLanes && d + j < steps; ++j)
        store(packed + c * steps + (d + j) * kLanes, square[j]);
    }
  }
}

// Lays out the rows of a task as [tile][vector][dim][lane]; those past its end become zeros.
static void load_rows(const LayerInputs& inputs, const LayerTask& task, bool pairs, int64_t steps,
                      float* out) {
  const int64_t before = task.sub_model * inputs.stride;
  const int64_t first = before + task.row, end = first + task.rows;
  for (int64_t i = 0; i < task.rows; i += kLanes)
    load_tile(inputs.data, inputs.bf16 && !pairs, first + i, end, steps, out + i * steps);
}

// Sums [output][vector][lane] of a tile of which `vectors` are in use.
template <Terms kTerms>
LC_INLINE void multiply(const float* x, const float* packed, int64_t steps, int64_t outputs,
                        int vectors, float* sums) {
  // At most kVectors: two and three occur only where that is four.
  constexpr int kTwo = kVectors < 2 ? kVectors : 2, kThree = kVectors < 3 ? kVectors : 3;
  switch (vectors) {
    case 1: return accumulate_block<kTerms, 1, kLanes>(x, packed, steps, outputs, sums);
    case kVectors:
      return accumulate_block<kTerms, kVectors, kLanes>(x, packed, steps, outputs, sums);
    default:
      if (vectors == kTwo)
        return accumulate_block<kTerms, kTwo, kLanes>(x, packed, steps, outputs, sums);
      accumulate_block<kTerms, kThree, kLanes>(x, packed, steps, outputs, sums);
  }
}

// Calls take(sums, first output, outputs, first row of the tile, vectors) for every block of
// outputs and every tile of the task's rows.
template <typename Take>
LC_INLINE void for_each_product(const MaskedWeight& weight, const LayerInputs& inputs,
                                const LayerTask& task, float* scratch, Take take) {
  const int64_t steps = steps_of(weight);
  float* rows = scratch;
  float* packed = rows + kTaskRows * steps;
  float* kept = packed + kBlock * steps;
  float* sums = kept + kMaxLanes * row_stride(weight.dims);
  load_rows(inputs, task, weight.pairs, steps, rows);
  for (int64_t from = task.from; from < task.to; from += kBlock) {
    const int64_t outputs = task.to - from < kBlock ? task.to - from : kBlock;
    pack_block(weight, task.sub_model, from, outputs, kept, packed);
    for (int64_t i = 0; i < task.rows; i += kTile) {
      const int64_t left = (task.rows - i + kLanes - 1) / kLanes;
      const int vectors = static_cast<int>(left < kVectors ? left : kVectors);
      const float* x = rows + i * steps;
      if (kHasPairs && weight.pairs)
        multiply<Terms::pairs>(x, packed, steps, outputs, vectors, sums);
      else
        multiply<Terms::products>(x, packed, steps, outputs, vectors, sums);
      take(sums, from, outputs, i, vectors);
    }
  }
}

}  // namespace LC_ISA
}  // namespace lc
