// A masked linear layer sorted into shells, so that all K sub-models together touch each weight
// once.
//
// Shell 0 holds the weights of the sparsest sub-model, shell j those that sub-model K-1-j adds to
// the one before. The running sum over shells, at the end of shell j, is the logit of sub-model
// K-1-j. Samples lie across the lanes of a vector: one weight is multiplied with all of them at
// once. The dims are cut into blocks whose part of a tile of samples fits the first-level cache;
// one load from it per weight bounds the speed, as in a dense product.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lc {

// Four weights of one shell and the offsets of their features. Small: quads come from the
// second-level cache, features from the first.
struct Quad {
  float weight[4];
  // Offset of the feature vector in the block's window of a tile, in units of 8 bytes. Bit 0 of the
  // last is set where a shell ends: the running sum is final for its sub-model.
  uint16_t offset[4];
};
static_assert(sizeof(Quad) == 24, "the kernels step through quads by 24 bytes");

// The same for bfloat16 weights and features, which processors with AVX512-BF16 multiply two at a
// time: weights as bits; a lane of the tile is one sample's bfloat16.
struct PairQuad {
  uint16_t weight[4];
  uint16_t offset[4];
};
static_assert(sizeof(PairQuad) == 16, "the kernels step through quads by 16 bytes");

enum class Form { wide, pairs };
// Samples of a tile, and bytes of a dim of them.
constexpr int tile_samples(Form form, int lanes) { return form == Form::pairs ? 32 : lanes; }
constexpr int64_t tile_bytes_per_dim(Form form, int lanes) {
  return form == Form::pairs ? 64 : lanes * static_cast<int64_t>(sizeof(float));
}

// The quads of one output (a class, a hidden unit) in one block of dims.
struct QuadRange {
  int64_t base;   // quads [base, outer) of a large shell 0 store no sums
  int64_t outer;  // quads [outer, end): the one that ends shell 0, then shells 1 .. K-1
  int64_t end;
};

struct Shells {
  Form form = Form::wide;
  int64_t outputs = 0, dims = 0, sub_models = 0;
  // Block b has dims [b · block_step, b · block_step + window). Windows overlap, so that a shell
  // can be divided into whole quads and is padded once, not once per block.
  int64_t blocks = 0, block_step = 0;
  int64_t outputs_per_group = 0;      // outputs whose quads fit the second-level cache together
  const Quad* quads = nullptr;        // of form wide
  const PairQuad* pairs = nullptr;    // of form pairs
  const QuadRange* ranges = nullptr;  // [block][output]
  const float* bias = nullptr;        // [output]
};

// Shells and the memory behind them.
class ShellStore {
 public:
  ShellStore(const ShellStore&) = delete;  // the view points into the vectors
  // weight and saliency are (outputs, dims) row-major; thresholds ascend (K). Weights are scaled by
  // `scale`, the bias too; scaled weights of form pairs must be bfloat16 numbers. Weights below
  // thresholds[0] are in no sub-model and are left out.
  ShellStore(Form form, const float* weight, const float* bias, const float* saliency,
             const float* thresholds, int64_t outputs, int64_t dims, int64_t sub_models, int lanes,
             float scale);
  const Shells& view() const { return view_; }

 private:
  template <class Entry>
  void sort(std::vector<Entry>& quads, const float* weight, const float* saliency,
            const float* thresholds, int64_t window, int64_t bytes_per_dim, float scale);

  Shells view_;
  std::vector<Quad> quads_;
  std::vector<PairQuad> pairs_;
  std::vector<QuadRange> ranges_;
  std::vector<float> bias_;
};

}  // namespace lc
