// SparseLayerPlan: the kept weights of a layer as lists, then any number of inputs.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "bindings/convolutions.h"
#include "common/parallel.h"
#include "simd/isa.h"
#include "sparse_layer/kernel.h"

namespace lc {
namespace {

// Inputs of a window, at the fewest bytes that a dim can take.
constexpr int64_t kMaxInputs = kSparseWindowBytes / 32;

// Weights are kept unless they are 0, of either sign; NaN is kept.
bool is_zero(float weight) { return weight == 0.f; }
bool is_zero(uint16_t bits) { return (bits & 0x7fff) == 0; }

void encode(float weight, float& out) { out = weight; }
void encode(uint16_t bits, uint16_t& out) { out = bits; }
void encode(uint16_t bits, float& out) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  std::memcpy(&out, &wide, sizeof out);
}

void compute(Isa isa, const SparseJob& job, int64_t row, float* scratch) {
  LC_DISPATCH(isa, sparse_layer, job, row, scratch)
}

template <class Weight>
int64_t count(const Weight* weight, int64_t numel, int threads) {
  constexpr int64_t kChunk = 1 << 16;
  std::atomic<int64_t> total{0};
  parallel_for((numel + kChunk - 1) / kChunk, threads, 0, [&](int64_t task, float*) {
    const int64_t end = std::min(numel, (task + 1) * kChunk);
    int32_t kept = 0;
    for (int64_t i = task * kChunk; i < end; ++i) kept += !is_zero(weight[i]);
    total += kept;
  });
  return total;
}

int64_t count_kept(const py::array& weight, int threads) {
  const bool bf16 = is_bf16(weight, "weight");
  py::gil_scoped_release unlocked;
  return bf16 ? count(static_cast<const uint16_t*>(weight.data()), weight.size(), threads)
              : count(static_cast<const float*>(weight.data()), weight.size(), threads);
}

class SparseLayerPlan {
 public:
  // weight is (outputs, taps, channels), taps [row][column] of a kernel `kernel_width` wide.
  SparseLayerPlan(const py::array& weight, const std::optional<Array<float>>& bias,
                  int64_t kernel_width, Pair stride, Pair padding, Pair dilation,
                  const std::optional<std::string>& activation, int threads)
      : isa_(active_isa()),
        lanes_(isa_lanes(isa_)),
        bf16_(is_bf16(weight, "weight")),
        window_(kernel_of(checked(weight), kernel_width), stride, padding, dilation) {
    SparseLayer& v = layer_;
    v.outputs = weight.shape(0);
    v.taps = weight.shape(1);
    v.activation = activation_named(activation);
    v.channels = weight.shape(2);
    v.pairs = bf16_ && isa_multiplies_bfloat16(isa_);
    const int64_t dims = v.taps * v.channels;
    const int64_t fit = kSparseWindowBytes / sparse_dim_bytes(v.pairs, lanes_);
    v.windows = (dims + fit - 1) / fit;
    v.window = (dims + v.windows - 1) / v.windows;
    bias_ = padded_bias(bias, v.outputs, v.outputs);
    py::gil_scoped_release unlocked;
    if (v.pairs)
      sort(static_cast<const uint16_t*>(weight.data()), pairs_, threads);
    else if (bf16_)
      sort(static_cast<const uint16_t*>(weight.data()), weights_, threads);
    else
      sort(static_cast<const float*>(weight.data()), weights_, threads);
    v.weights = weights_.data();
    v.weight_pairs = pairs_.data();
    v.runs = runs_.data();
    v.starts = starts_.data();
    v.bias = bias_.data();
  }
  SparseLayerPlan(const SparseLayerPlan&) = delete;  // the view points into the vectors

  // x is (images, height, width, channels), out (images, out height, out width, outputs).
  void run(const py::array& x, py::array out, int threads) const {
    const SparseLayer& v = layer_;
    const SparseJob job{v,
                        {window_.filling(x, out, bf16_, v.channels, v.outputs), x.data(), bf16_},
                        out.mutable_data()};
    const int64_t samples = sparse_samples(lanes_);
    py::gil_scoped_release unlocked;
    parallel_for(
        (job.x.rows() + samples - 1) / samples, threads, sparse_scratch(v),
        [&](int64_t task, float* scratch) { compute(isa_, job, task * samples, scratch); });
  }

 private:
  static const py::array& checked(const py::array& weight) {
    require(weight.ndim() == 3 && weight.shape(1) > 0 && weight.shape(2) > 0,
            "weight must be (outputs, taps, channels), with a tap and a channel");
    return weight;
  }

  template <class Weight, class Entry>
  void sort(const Weight* weight, std::vector<Entry>& lists, int threads) {
    const SparseLayer& v = layer_;
    const int64_t dims = v.taps * v.channels;
    runs_.resize(static_cast<size_t>(v.windows * v.outputs));
    starts_.resize(static_cast<size_t>(v.windows));
    const auto until = [&](int64_t w) { return std::min(dims, (w + 1) * v.window); };
    parallel_for(v.outputs, threads, 0, [&](int64_t c, float*) {
      for (int64_t w = 0; w < v.windows; ++w) {
        int64_t kept = 0;
        for (int64_t d = w * v.window; d < until(w); ++d) kept += !is_zero(weight[c * dims + d]);
        runs_[static_cast<size_t>(w * v.outputs + c)] = {static_cast<int32_t>(c),
                                                         static_cast<int32_t>((kept + 3) / 4)};
      }
    });
    std::vector<int64_t> first(runs_.size());  // [window][output], into the lists
    int64_t next = 0;
    for (int64_t w = 0; w < v.windows; ++w) {
      starts_[static_cast<size_t>(w)] = next;
      const auto begin = runs_.begin() + w * v.outputs;
      std::stable_sort(begin, begin + v.outputs,
                       [](const SparseRun& a, const SparseRun& b) { return a.count < b.count; });
      for (auto one = begin; one != begin + v.outputs; ++one) {
        first[static_cast<size_t>(w * v.outputs + one->output)] = next;
        next += one->count;
      }
    }
    lists.assign(static_cast<size_t>(next), Entry{});
    const int64_t dim_bytes = sparse_dim_bytes(v.pairs, lanes_);
    parallel_for(v.outputs, threads, 0, [&](int64_t c, float*) {
      for (int64_t w = 0; w < v.windows; ++w) {
        Entry* list = lists.data() + first[static_cast<size_t>(w * v.outputs + c)];
        // Into a buffer, so that a zero may be written and overwritten: a branch at every zero
        // would be mispredicted.
        Entry one[kMaxInputs / 4 + 1]{};
        int64_t kept = 0;
        for (int64_t d = w * v.window; d < until(w); ++d) {
          const Weight value = weight[c * dims + d];
          encode(value, one[kept / 4].weight[kept % 4]);
          one[kept / 4].offset[kept % 4] = static_cast<uint16_t>((d - w * v.window) * dim_bytes);
          kept += !is_zero(value);
        }
        if (kept % 4 != 0) std::fill_n(one[kept / 4].weight + kept % 4, 4 - kept % 4, 0);
        std::copy_n(one, (kept + 3) / 4, list);
      }
    });
  }

  Isa isa_;
  int lanes_;
  bool bf16_;
  Window window_;
  std::vector<SparseWeights> weights_;
  std::vector<SparsePairs> pairs_;
  std::vector<SparseRun> runs_;
  std::vector<int64_t> starts_;
  std::vector<float> bias_;
  SparseLayer layer_;
};

}  // namespace

void bind_sparse_layer(py::module_& module) {
  py::class_<SparseLayerPlan>(module, "SparseLayerPlan",
                              "A layer's kept weights as lists; see ops.SparseLayerPlan.")
      .def(py::init<const py::array&, const std::optional<Array<float>>&, int64_t, Pair, Pair, Pair,
                    const std::optional<std::string>&, int>(),
           py::arg("weight"), py::arg("bias"), py::arg("kernel_width"), py::arg("stride"),
           py::arg("padding"), py::arg("dilation"), py::arg("activation"), py::arg("threads"))
      .def("run", &SparseLayerPlan::run, py::arg("x"), py::arg("out").noconvert(),
           py::arg("threads"));
  module.def("count_kept", &count_kept, py::arg("weight"), py::arg("threads"),
             "How many weights are not zero.");
}

}  // namespace lc
