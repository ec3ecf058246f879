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
               int32_t* begin, float* steps, float* scratch) {
  LC_DISPATCH(isa, winograd_weights, layer, weight, block, out, begin, steps, scratch)
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
        layer_{0, 0, is_bits16(weight, "weight"), Multiplied::floats, isa_lanes(isa_)},
        window_({3, 3}, {1, 1}, padding, {1, 1}),
        activation_(activation_named(activation)),
        weights_(0) {
    require(weight.ndim() == 3 && weight.shape(1) == 9 && weight.shape(2) > 0,
            "weight must be (outputs, 9, channels), with a channel");
    layer_.outputs = weight.shape(0);
    layer_.channels = weight.shape(2);
    if (int8) {
      require(layer_.channels <= kMostInt8Inputs, "weight must have at most 65536 channels");
      layer_.multiplied = Multiplied::bytes;
      begin_.resize(static_cast<size_t>(layer_.steps()));
      steps_.resize(static_cast<size_t>(layer_.steps()));
    } else if (layer_.bits16 && isa_multiplies_bfloat16(isa_)) {
      layer_.multiplied = Multiplied::pairs;
    }
    bias_ = padded_bias(bias, layer_.outputs, layer_.blocks() * 2 * layer_.lanes);
    weights_ = AlignedFloats(layer_.weight_bytes() / 4, Memory::as_it_is);
    char* out = reinterpret_cast<char*>(weights_.data.get());
    const void* given = weight.data();
    py::gil_scoped_release unlocked;
    parallel_for(layer_.blocks(), threads, winograd_weight_scratch(layer_),
                 [&](int64_t block, float* scratch) {
                   transform(isa_, layer_, given, block, out, begin_.data(), steps_.data(),
                             scratch);
                 });
  }

  // x is (images, height, width, channels), out (images, out height, out width, outputs).
  void run(const py::array& x, py::array out, int threads) const {
    const WinogradJob job{window_.filling(x, out, layer_.bits16, layer_.channels, layer_.outputs),
                          layer_,
                          reinterpret_cast<const char*>(weights_.data.get()),
                          begin_.data(),
                          steps_.data(),
                          isa_multiplies_int8(isa_),
                          bias_.data(),
                          activation_,
                          x.data(),
                          out.mutable_data()};
    py::gil_scoped_release unlocked;
    // Shares of the same size for all threads, in whole fours of tiles.
    const int64_t tiles = job.tiles(), team = std::max(1, threads);
    const int64_t rounds = (tiles + team * kMostTiles - 1) / (team * kMostTiles);
    if (rounds == 0) return;
    const int64_t share = std::min(
        kMostTiles, WinogradLayer::round_up((tiles + rounds * team - 1) / (rounds * team), 4));
    parallel_for((tiles + share - 1) / share, threads, winograd_scratch(layer_, share),
                 [&](int64_t task, float* scratch) {
                   compute(isa_, job, task * share, std::min(share, tiles - task * share), scratch);
                 },
                 Memory::as_it_is);
  }

 private:
  Isa isa_;
  WinogradLayer layer_;
  Window window_;
  Activation activation_;
  AlignedFloats weights_;
  std::vector<int32_t> begin_;
  std::vector<float> steps_, bias_;
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
