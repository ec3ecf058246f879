#include "common/shells.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace lc {
namespace {

constexpr int64_t kWindowBytes = 28 * 1024;  // of a 32 KB first-level cache
// Form pairs loads two features of 32 samples at a time, which the second-level cache supplies fast
// enough: one window for as many dims as an offset can name.
constexpr int64_t kPairWindowBytes = 512 * 1024;
constexpr int64_t kGroupBytes = 128 * 1024;  // of a 1 MB second-level cache
constexpr int64_t kOverlap = 32;             // dims that neighbouring windows share at least
// Quads of shell 0 from which on a loop without stores pays for its mispredicted end.
constexpr int64_t kQuietQuads = 12;

// Shell of a weight, or -1 where no sub-model keeps it. A NaN saliency keeps nothing.
int32_t shell_of(float saliency, const float* thresholds, int64_t sub_models) {
  const float* above = std::upper_bound(thresholds, thresholds + sub_models, saliency);
  if (std::isnan(saliency) || above == thresholds) return -1;
  return static_cast<int32_t>(sub_models - (above - thresholds));
}

void encode(float weight, float& out) { out = weight; }
void encode(float weight, uint16_t& out) {
  uint32_t bits;
  std::memcpy(&bits, &weight, sizeof bits);
  out = static_cast<uint16_t>(bits >> 16);
}

// Writes the entries of one output, block by block, into quads.
template <class Entry>
class QuadWriter {
 public:
  QuadWriter(std::vector<Entry>& quads, float scale, int64_t units_per_dim)
      : quads_(quads), scale_(scale), units_per_dim_(units_per_dim) {}

  // `dims` of the weights of one shell, in the window that starts at `origin`, padded to quads.
  void write(const float* weight, const int32_t* dims, int64_t count, int64_t origin) {
    for (int64_t i = 0; i < count; i += 4) {
      Entry quad{};
      for (int64_t j = 0; j < 4 && i + j < count; ++j) {
        encode(weight[dims[i + j]] * scale_, quad.weight[j]);
        quad.offset[j] = static_cast<uint16_t>((dims[i + j] - origin) * units_per_dim_);
      }
      quads_.push_back(quad);
    }
  }
  void end_shell(bool empty) {
    if (empty) quads_.push_back(Entry{});
    quads_.back().offset[3] |= 1u;
  }
  int64_t next() const { return static_cast<int64_t>(quads_.size()); }

 private:
  std::vector<Entry>& quads_;
  float scale_;
  int64_t units_per_dim_;
};

// Returns how many of a shell's entries a block takes, in whole quads where it can: the first
// `must` lie in no later window, the first `may` in this one.
int64_t share(int64_t must, int64_t may) {
  const int64_t whole = std::max<int64_t>((must + 3) / 4, 1) * 4;
  return whole <= may ? whole : (must % 4 == 0 ? must : may);
}

}  // namespace

template <class Entry>
void ShellStore::sort(std::vector<Entry>& quads, const float* weight, const float* saliency,
                      const float* thresholds, int64_t window, int64_t bytes_per_dim, float scale) {
  const Shells& v = view_;
  const int64_t outputs = v.outputs, dims = v.dims, sub_models = v.sub_models;
  quads.reserve(static_cast<size_t>(outputs * (dims / 4 + (sub_models + 1) * v.blocks)));
  QuadWriter<Entry> writer(quads, scale, bytes_per_dim / 8);
  // Dims of the weights of each shell of each output of a group, ascending, and how many are
  // written.
  std::vector<std::vector<int32_t>> shells(static_cast<size_t>(v.outputs_per_group * sub_models));
  std::vector<int64_t> taken(shells.size());
  for (int64_t first = 0; first < outputs; first += v.outputs_per_group) {
    const int64_t last = std::min(outputs, first + v.outputs_per_group);
    for (auto& shell : shells) shell.clear();
    std::fill(taken.begin(), taken.end(), 0);
    for (int64_t c = first; c < last; ++c) {
      for (int64_t d = 0; d < dims; ++d) {
        const int64_t i = c * dims + d;
        const float s = saliency == nullptr ? std::fabs(weight[i]) : saliency[i];
        const int32_t j = shell_of(s, thresholds, sub_models);
        if (j >= 0) shells[(c - first) * sub_models + j].push_back(static_cast<int32_t>(d));
      }
    }
    // The order in which the kernel reads: groups of outputs, blocks, outputs, shells.
    for (int64_t b = 0; b < v.blocks; ++b) {
      const int64_t origin = b * v.block_step, end = origin + window;
      const int64_t later = b + 1 < v.blocks ? origin + v.block_step : dims;
      for (int64_t c = first; c < last; ++c) {
        QuadRange& range = ranges_[b * outputs + c];
        range.base = range.outer = writer.next();
        for (int64_t j = 0; j < sub_models; ++j) {
          const auto& shell = shells[(c - first) * sub_models + j];
          int64_t& from = taken[(c - first) * sub_models + j];
          const auto until = [&](int64_t dim) {
            return std::lower_bound(shell.begin() + from, shell.end(), dim) -
                   (shell.begin() + from);
          };
          const int64_t count = share(until(later), until(end));
          writer.write(weight + c * dims, shell.data() + from, count, origin);
          from += count;
          writer.end_shell(count == 0);
          if (j == 0 && writer.next() - range.base > kQuietQuads) range.outer = writer.next() - 1;
        }
        range.end = writer.next();
      }
    }
  }
}

ShellStore::ShellStore(Form form, const float* weight, const float* bias, const float* saliency,
                       const float* thresholds, int64_t outputs, int64_t dims, int64_t sub_models,
                       int lanes, float scale) {
  Shells& v = view_;
  v.form = form;
  v.outputs = outputs;
  v.dims = dims;
  v.sub_models = sub_models;
  const bool pairs = form == Form::pairs;
  const int64_t bytes_per_dim = tile_bytes_per_dim(form, lanes);
  const int64_t quad_bytes = static_cast<int64_t>(pairs ? sizeof(PairQuad) : sizeof(Quad));
  const int64_t fit = (pairs ? kPairWindowBytes : kWindowBytes) / bytes_per_dim;
  const int64_t window = std::max<int64_t>(1, std::min(dims, fit));
  v.blocks = 1;
  while (v.blocks * window < dims + (v.blocks - 1) * kOverlap) ++v.blocks;
  v.block_step = v.blocks == 1 ? 0 : (dims - window + v.blocks - 2) / (v.blocks - 1);
  v.outputs_per_group =
      std::clamp<int64_t>(kGroupBytes / std::max<int64_t>(1, dims * quad_bytes / 4), 1, outputs);
  ranges_.resize(static_cast<size_t>(v.blocks * outputs));
  if (pairs)
    sort(pairs_, weight, saliency, thresholds, window, bytes_per_dim, scale);
  else
    sort(quads_, weight, saliency, thresholds, window, bytes_per_dim, scale);
  bias_.resize(static_cast<size_t>(outputs), 0.f);
  for (int64_t c = 0; bias != nullptr && c < outputs; ++c) bias_[c] = bias[c] * scale;
  v.quads = quads_.data();
  v.pairs = pairs_.data();
  v.ranges = ranges_.data();
  v.bias = bias_.data();
}

}  // namespace lc
