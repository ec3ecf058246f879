// WinogradPlan: the transformed weights of a 3 × 3 convolution, then any number of inputs.
#include <algorithm>
#include <array>
#include <vector>

#include "bindings/arrays.h"
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
  WinogradPlan(const py::array& weight, const std::optional<Array<float>>& bias,
               std::array<int64_t, 2> padding, const std::optional<std::string>& activation,
               bool int8, int threads)
      : isa_(active_isa()),
        layer_{0, 0, is_bits16(weight, "weight"), Multiplied::floats, isa_lanes(isa_)},
        padding_(padding),
        activation_(activation_named(activation)),
        weights_(0) {
    require(weight.ndim() == 3 && weight.shape(1) == 9 && weight.shape(2) > 0,
            "weight must be (outputs, 9, channels), with a channel");
    require(std::min(padding[0], padding[1]) >= 0, "padding must not be negative");
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
    require(!bias || (bias->ndim() == 1 && bias->shape(0) == layer_.outputs),
            "bias must be (outputs)");
    bias_.resize(static_cast<size_t>(layer_.blocks() * 2 * layer_.lanes), 0.f);
    if (bias) std::copy_n(bias->data(), layer_.outputs, bias_.begin());
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
    require(x.ndim() == 4 && x.shape(3) == layer_.channels,
            "x must be (images, height, width, channels)");
    require(is_bits16(x, "x") == layer_.bits16, "x must have the dtype of the weight");
    const auto after = [&](int i) {
      return std::max<int64_t>(0, x.shape(i + 1) + 2 * padding_[static_cast<size_t>(i)] - 2);
    };
    require(is_bits16(out, "out") == layer_.bits16 && out.ndim() == 4 && out.writeable() &&
                out.shape(0) == x.shape(0) && out.shape(1) == after(0) &&
                out.shape(2) == after(1) && out.shape(3) == layer_.outputs,
            "out must be a writable (images, out height, out width, outputs) array like x");
    const WinogradJob job{layer_,
                          reinterpret_cast<const char*>(weights_.data.get()),
                          begin_.data(),
                          steps_.data(),
                          isa_multiplies_int8(isa_),
                          bias_.data(),
                          activation_,
                          x.data(),
                          out.mutable_data(),
                          x.shape(0),
                          x.shape(1),
                          x.shape(2),
                          out.shape(1),
                          out.shape(2),
                          {padding_[0], padding_[1]}};
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
  std::array<int64_t, 2> padding_;
  Activation activation_;
  AlignedFloats weights_;
  std::vector<int32_t> begin_;
  std::vector<float> steps_, bias_;
};

}  // namespace

void bind_winograd(py::module_& module) {
  py::class_<WinogradPlan>(module, "WinogradPlan",
                           "A 3 x 3 convolution's transformed weights; see ops.WinogradPlan.")
      .def(py::init<const py::array&, const std::optional<Array<float>>&, std::array<int64_t, 2>,
                    const std::optional<std::string>&, bool, int>(),
           py::arg("weight"), py::arg("bias"), py::arg("padding"), py::arg("activation"),
           py::arg("int8"), py::arg("threads"))
      .def("run", &WinogradPlan::run, py::arg("x"), py::arg("out").noconvert(), py::arg("threads"));
}

}  // namespace lc
