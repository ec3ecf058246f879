// Rows of one sub-model against a layer's masked weights: what masked_linear and token_nll share.
//
// A block of outputs is masked, widened and packed, then meets all rows of the task in the
// register-tiled product of tile.h. No masked copy of the weights is ever held.
#pragma once
#include "activate.h"
#include "masked_weight.h"
#include "philox.h"
#include "simd.h"
#include "tile.h"

namespace lc {
namespace LC_ISA {

LC_INLINE float weight_at(const MaskedWeight& weight, int64_t i) {
  if (!weight.bits16) return static_cast<const float*>(weight.data)[i];
  const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(weight.data)[i]) << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

LC_INLINE Vec weights_at(const MaskedWeight& weight, int64_t i) {
  return weight.bits16 ? load_wide(static_cast<const uint16_t*>(weight.data) + i)
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

// Packs (tile_sizes.h) the outputs [from, from + outputs) as a sub-model keeps them. Whole rows are
// read one after the other, as they lie in memory, so that the processor fetches ahead.
static void pack_block(const MaskedWeight& weight, int64_t sub_model, int64_t from, int64_t outputs,
                       float* rows, float* packed) {
  const int64_t dims = weight.dims, stride = row_stride(dims);
  for (int64_t c = 0; c < outputs; c += kLanes) {
    const int64_t some = outputs - c < kLanes ? outputs - c : kLanes;
    for (int64_t i = 0; i < some; ++i) mask_row(weight, sub_model, from + c + i, rows + i * stride);
    for (int64_t d = 0; d < dims; d += kLanes) {
      // What lies past the dims or the outputs of the block is left over, and is not read.
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i) square[i] = load(rows + i * stride + d);
      transpose(square);
      const int64_t left = dims - d < kLanes ? dims - d : kLanes;
      float* out = packed + packed_index(c, d, dims);
      for (int64_t j = 0; j < left; ++j) {
        alignas(64) float column[kLanes];
        store(column, square[j]);
        for (int64_t i = 0; i < some; i += kGroup)
          memcpy(out + i * dims + j * kGroup, column + i, kGroup * sizeof(float));
      }
    }
  }
}

// The rows of a task as [tile][vector][dim][lane]; those past its end become zeros.
static void load_rows(const LayerInputs& inputs, const LayerTask& task, int64_t dims, float* out) {
  const int64_t before = task.sub_model * inputs.stride;
  const int64_t first = before + task.row, end = first + task.rows;
  for (int64_t i = 0; i < task.rows; i += kLanes)
    load_tile(inputs.data, inputs.bits16, first + i, end, dims, out + i * dims);
}

// Sums [output][vector][lane] of a tile of which `vectors` are in use.
LC_INLINE void multiply(const float* x, const float* packed, int64_t dims, int64_t outputs,
                        int vectors, float* sums) {
  if (vectors == kVectors) return gather_block<true>(x, packed, dims, outputs, sums);
  if (vectors == 1) return gather_block<true, 1>(x, packed, dims, outputs, sums);
  // Not more than kVectors: these two are only met where that is four.
  constexpr int kTwo = kVectors < 2 ? kVectors : 2, kThree = kVectors < 3 ? kVectors : 3;
  if (vectors == 2) return gather_block<true, kTwo>(x, packed, dims, outputs, sums);
  gather_block<true, kThree>(x, packed, dims, outputs, sums);
}

// Calls take(sums, first output, outputs, first row of the tile, vectors) for every block of
// outputs and every tile of the task's rows.
template <typename Take>
LC_INLINE void for_each_product(const MaskedWeight& weight, const LayerInputs& inputs,
                                const LayerTask& task, float* scratch, Take take) {
  const int64_t dims = weight.dims;
  float* rows = scratch;
  float* packed = rows + kTaskRows * dims;
  float* kept = packed + kBlock * dims;
  float* sums = kept + kMostLanes * row_stride(dims);
  load_rows(inputs, task, dims, rows);
  for (int64_t from = task.from; from < task.to; from += kBlock) {
    const int64_t outputs = task.to - from < kBlock ? task.to - from : kBlock;
    pack_block(weight, task.sub_model, from, outputs, kept, packed);
    for (int64_t i = 0; i < task.rows; i += kTile) {
      const int64_t left = (task.rows - i + kLanes - 1) / kLanes;
      const int vectors = static_cast<int>(left < kVectors ? left : kVectors);
      multiply(rows + i * dims, packed, dims, outputs, vectors, sums);
      take(sums, from, outputs, i, vectors);
    }
  }
}

}  // namespace LC_ISA
}  // namespace lc
