// The kernel behind MLPPlan; see mlp_confidence/kernel.h for the idea.
//
//   first layer:  shells -> hidden[sub-model][tile][vector][unit][lane], activated
//   sub-models:   hidden -> (masked layer -> activation)* -> masked layer -> softmax
// At most the hidden activations of 64 samples exist at a time.
#include "mlp_confidence/kernel.h"

#include "common/shell_product.h"
#include "common/tile.h"
#include "simd/activate.h"
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {
namespace {

struct Scratch {
  float* features;  // [vector][dim][lane]
  float* partial;   // [output of the group][sub-model][lane]
  float* last;      // [sub-model + 1][lane]
  float* hidden;    // [sub-model][tile][vector][unit][lane]
  float* layer[2];  // [tile][vector][unit][lane], of the layers between the first and the last
  float* masked;    // packed weights of a block of outputs
  float* sums;      // [output of the block][vector][lane]
};

// Units of the first layer, of all sub-models: activated if a layer follows.
void first_layer(const MLPJob& job, const Scratch& scratch, int64_t vectors) {
  const Shells& s = *job.shells;
  const int64_t width = s.sub_models * kLanes, stride = kRows * s.outputs;
  for (int64_t from = 0; from < s.outputs; from += s.outputs_per_group) {
    const int64_t end = from + s.outputs_per_group, to = end < s.outputs ? end : s.outputs;
    for (int64_t v = 0; v < vectors; ++v) {
      const float* x = scratch.features + v * s.dims * kLanes;
      float* hidden = scratch.hidden + v * s.outputs * kLanes;
      for (int64_t b = 0; b + 1 < s.blocks; ++b)
        for (int64_t c = from; c < to; ++c) {
          float* partial = scratch.partial + (c - from) * width;
          if (b == 0) {
            accumulate_output<Wide>(s, b, c, x, partial);
          } else {
            accumulate_output<Wide>(s, b, c, x, scratch.last);
            for (int64_t j = 0; j < width; j += kLanes)
              store(partial + j, add(load(partial + j), load(scratch.last + j)));
          }
        }
      for (int64_t c = from; c < to; ++c) {
        accumulate_output<Wide>(s, s.blocks - 1, c, x, scratch.last);
        const float* partial = scratch.partial + (c - from) * width;
        for (int64_t j = 0; j < s.sub_models; ++j) {
          Vec unit = load(scratch.last + j * kLanes);
          if (s.blocks > 1) unit = add(load(partial + j * kLanes), unit);
          if (job.layer_count > 0) unit = activate(job.activation, unit);
          store(hidden + j * stride + c * kLanes, unit);
        }
      }
    }
  }
}

// The weights of a block of outputs that a sub-model keeps.
void mask(const MaskedLayer& layer, int64_t sub_model, int64_t from, int64_t outputs, float* out) {
  const int64_t at = packed_index(from, 0, layer.inputs);
  const Vec threshold = splat(layer.thresholds[sub_model]);
  const int64_t count = packed_size(outputs, layer.inputs);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec w = load_unaligned(layer.weight + at + i);
    const Vec score =
        layer.saliency == nullptr ? absolute(w) : load_unaligned(layer.saliency + at + i);
    store(out + i, keep(w, score, threshold));
  }
}

// Sums [output][vector][lane] of a block of outputs, from the lists of weights.
void accumulate_sparse(const MaskedLayer& layer, int64_t sub_model, int64_t from, int64_t outputs,
                       const float* hidden, float* sums) {
  const int32_t* counts = layer.count + sub_model * layer.outputs;
  for (int v = 0; v < kVectors; ++v) {
    const float* x = hidden + v * layer.inputs * kLanes;
    for (int64_t c = 0; c < outputs; ++c) {
      const SparseQuad* q = layer.quads + layer.first[from + c];
      int64_t left = counts[from + c];
      Vec w0, w1, w2, w3, sum = splat(0.f), more = splat(0.f);
      const auto meet = [&](const float* weights) {
        splat4(weights, w0, w1, w2, w3);
        sum = fma(w0, load(x + q->input[0] * kLanes), sum);
        more = fma(w1, load(x + q->input[1] * kLanes), more);
        sum = fma(w2, load(x + q->input[2] * kLanes), sum);
        more = fma(w3, load(x + q->input[3] * kLanes), more);
      };
      for (; left >= 4; left -= 4, ++q) meet(q->weight);
      if (left > 0) {
        alignas(16) const float rest[4] = {q->weight[0], left > 1 ? q->weight[1] : 0.f,
                                           left > 2 ? q->weight[2] : 0.f, 0.f};
        meet(rest);
      }
      store(sums + (c * kVectors + v) * kLanes, add(sum, more));
    }
  }
}

// Calls take(sums, first output, outputs, tile) for every block of outputs and every tile.
template <typename Take>
LC_INLINE void run_layer(const MaskedLayer& layer, int64_t sub_model, const float* hidden,
                         int64_t rows, const Scratch& scratch, Take take) {
  const bool sparse = sub_model < layer.sparse;
  for (int64_t from = 0; from < layer.outputs; from += kBlock) {
    const int64_t outputs = layer.outputs - from < kBlock ? layer.outputs - from : kBlock;
    if (!sparse) mask(layer, sub_model, from, outputs, scratch.masked);
    for (int64_t i = 0; i < rows; i += kTile) {
      const float* x = hidden + i * layer.inputs;
      if (sparse)
        accumulate_sparse(layer, sub_model, from, outputs, x, scratch.sums);
      else
        accumulate_block<Terms::products>(x, scratch.masked, layer.inputs, outputs, scratch.sums);
      take(scratch.sums, from, outputs, i / kTile);
    }
  }
}

// Logits of one sub-model, a block of classes at a time, into the softmax of each tile.
void score(const MLPJob& job, int64_t j, int64_t rows, const Scratch& scratch,
           const int64_t* labels, Softmax* softmax) {
  const Shells& s = *job.shells;
  const float* hidden = scratch.hidden + j * kRows * s.outputs;
  if (job.layer_count == 0) {
    for (int64_t i = 0; i < rows; i += kTile)
      for (int64_t from = 0; from < s.outputs; from += kBlock) {
        const int64_t classes = s.outputs - from < kBlock ? s.outputs - from : kBlock;
        for (int64_t c = 0; c < classes; ++c)
          for (int v = 0; v < kVectors; ++v)
            store(scratch.sums + (c * kVectors + v) * kLanes,
                  load(hidden + ((i / kLanes + v) * s.outputs + from + c) * kLanes));
        take_in(scratch.sums, from, classes, labels + i, softmax[i / kTile],
                [](Vec sum, int64_t, int) { return mul(sum, splat(kLog2E)); });
      }
    return;
  }
  for (int64_t l = 0; l + 1 < job.layer_count; ++l) {
    const MaskedLayer& layer = job.layers[l];
    float* out = scratch.layer[l % 2];
    run_layer(layer, j, hidden, rows, scratch,
              [&](const float* sums, int64_t from, int64_t outputs, int64_t tile) {
                for (int v = 0; v < kVectors; ++v)
                  for (int64_t c = 0; c < outputs; ++c) {
                    const Vec bias = splat(layer.bias[from + c]);
                    const Vec sum = load(sums + (c * kVectors + v) * kLanes);
                    const int64_t vector = tile * kVectors + v;
                    store(out + (vector * layer.outputs + from + c) * kLanes,
                          activate(job.activation, add(sum, bias)));
                  }
              });
    hidden = out;
  }
  const MaskedLayer& layer = job.layers[job.layer_count - 1];
  run_layer(layer, j, hidden, rows, scratch,
            [&](float* sums, int64_t from, int64_t outputs, int64_t tile) {
              const float* bias = layer.bias + from;
              take_in(sums, from, outputs, labels + tile * kTile, softmax[tile],
                      [bias](Vec sum, int64_t c, int) {
                        return mul(add(sum, splat(bias[c])), splat(kLog2E));
                      });
            });
}

}  // namespace

void mlp_confidence(const MLPJob& job, int64_t row, float* memory) {
  const Shells& s = *job.shells;
  const int64_t left = job.samples - row < kRows ? job.samples - row : kRows;
  Scratch scratch;
  scratch.features = memory;
  scratch.hidden = scratch.features + kRows * s.dims;
  scratch.layer[0] = scratch.hidden + s.sub_models * kRows * s.outputs;
  scratch.layer[1] = scratch.layer[0] + kRows * job.widest;
  scratch.sums = scratch.layer[1] + kRows * job.widest;
  scratch.last = scratch.sums + kBlock * kTile;
  scratch.partial = scratch.last + (s.sub_models + 1) * kLanes;
  scratch.masked = scratch.partial;
  if (s.blocks > 1) scratch.masked += (s.outputs_per_group * s.sub_models + 1) * kLanes;

  int64_t labels[kRows];
  for (int64_t i = 0; i < kRows; ++i)
    labels[i] = job.labels != nullptr && i < left ? job.labels[row + i] : -1;
  const int64_t vectors = (left + kLanes - 1) / kLanes;
  for (int64_t v = 0; v < vectors; ++v)
    load_tile(job.features, job.bf16, row + v * kLanes, job.samples, s.dims,
              scratch.features + v * s.dims * kLanes);
  first_layer(job, scratch, vectors);
  for (int64_t j = 0; j < s.sub_models; ++j) {
    Softmax softmax[kRows / kTile];
    for (Softmax& one : softmax) start(one);
    score(job, j, left, scratch, labels, softmax);
    float* out = job.log_probs + (s.sub_models - 1 - j) * job.samples + row;
    for (int64_t i = 0; i < left; i += kTile)
      emit(softmax[i / kTile], job.labels != nullptr, left - i, out + i);
  }
}

}  // namespace LC_ISA
}  // namespace lc
