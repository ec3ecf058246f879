// WinogradPlan: the transformed weights of a 3 × 3 convolution, then any number of inputs.
#include <algorithm>
#include <vector>

#include "bindings/convolutions.h"
#include "common/int8_layer.h"
#include "common/parallel.h"
#include "simd/isa.h"
#include "winograd/kernel.h"

namespace lc {
namespace {

void transform(Isa isa, const WinogradLayer& layer, const void* weight, int64_t block, char* out,
               int32_t* compensation, float* scales, float* scratch) {
  LC_DISPATCH(isa, winograd_weights, layer, weight, block, out, compensation, scales, scratch)
}

void compute(Isa isa, const WinogradJob& job, int64_t first, int64_t count, float* scratch) {
  LC_DISPATCH(isa, winograd_tiles, job, first, count, scratch)
}

class WinogradPlan {
 public:
  // weight is (outputs, 9, channels), rows of the kernel first.
  WinogradPlan(const py::array& weight, const std::optional<Array<float>>& bias, Pair padding,
               const std::optional<std::string>& activation, bool int8, int threads)
      : isa_(active_isa()),
        layer_{0, 0, is_bf16(weight, "weight"), Multiplied::floats, isa_lanes(isa_)},
        window_({3, 3}, {1, 1}, padding, {1, 1}),
        activation_(activation_named(activation)),
        weights_(0) {
    require(weight.ndim() == 3 && weight.shape(1) == 9 && weight.shape(2) > 0,
            "weight must be (outputs, 9, channels), with a channel");
    layer_.outputs = weight.shape(0);
    layer_.channels = weight.shape(2);
    if (int8) {
      require(layer_.channels <= kMaxInt8Inputs, "weight must have at most 65536 channels");
      layer_.multiplied = Multiplied::int8;
      compensation_.resize(static_cast<size_t>(layer_.scales()));
      scales_.resize(static_cast<size_t>(layer_.scales()));
    } else if (layer_.bf16 && isa_multiplies_bfloat16(isa_)) {
      layer_.multiplied = Multiplied::pairs;
    }
    bias_ = padded_bias(bias, layer_.outputs, layer_.blocks() * 2 * layer_.lanes);
    weights_ = AlignedFloats(layer_.weight_bytes() / 4, Memory::uninitialized);
    char* out = reinterpret_cast<char*>(weights_.data.get());
    const void* given = weight.data();
    py::gil_scoped_release unlocked;
    parallel_for(layer_.blocks(), threads, winograd_weight_scratch(layer_),
                 [&](int64_t block, float* scratch) {
                   transform(isa_, layer_, given, block, out, compensation_.data(), scales_.data(),
                             scratch);
                 });
  }

  // x is (images, height, width, channels), out (images, out height, out width, outputs).
  void run(const py::array& x, py::array out, int threads) const {
    const WinogradJob job{window_.filling(x, out, layer_.bf16, layer_.channels, layer_.outputs),
                          layer_,
                          reinterpret_cast<const char*>(weights_.data.get()),
                          compensation_.data(),
                          scales_.data(),
                          isa_multiplies_int8(isa_),
                          bias_.data(),
                          activation_,
                          x.data(),
                          out.mutable_data()};
    py::gil_scoped_release unlocked;
    // Equal shares for all threads, in multiples of 4 tiles.
    const int64_t tiles = job.tiles(), team = std::max(1, threads);
    const int64_t rounds = (tiles + team * kMaxTiles - 1) / (team * kMaxTiles);
    if (rounds == 0) return;
    const int64_t share = std::min(
        kMaxTiles, WinogradLayer::round_up((tiles + rounds * team - 1) / (rounds * team), 4));
    parallel_for((tiles + share - 1) / share, threads, winograd_scratch(layer_, share),
                 [&](int64_t task, float* scratch) {
                   compute(isa_, job, task * share, std::min(share, tiles - task * share), scratch);
                 },
                 Memory::uninitialized);
  }

 private:
  Isa isa_;
  WinogradLayer layer_;
  Window window_;
  Activation activation_;
  AlignedFloats weights_;
  std::vector<int32_t> compensation_;
  std::vector<float> scales_, bias_;
};

}  // namespace

void bind_winograd(py::module_& module) {
  py::class_<WinogradPlan>(module, "WinogradPlan",
                           "A 3 x 3 convolution's transformed weights; see ops.WinogradPlan.")
      .def(py::init<const py::array&, const std::optional<Array<float>>&, Pair,
                    const std::optional<std::string>&, bool, int>(),
           py::arg("weight"), py::arg("bias"), py::arg("padding"), py::arg("activation"),
           py::arg("int8"), py::arg("threads"))
      .def("run", &WinogradPlan::run, py::arg("x"), py::arg("out").noconvert(), py::arg("threads"));
}

}  // namespace lc
