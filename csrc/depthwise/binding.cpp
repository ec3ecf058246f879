// DepthwisePlan: packed weights of a depthwise convolution, then any number of inputs.
#include <algorithm>
#include <vector>

#include "bindings/convolutions.h"
#include "common/parallel.h"
#include "depthwise/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

// Rows of a task: neighbours share inputs.
constexpr int64_t kRowsAtOnce = 8;

void compute(Isa isa, const DepthwiseJob& job, int64_t from, int64_t to) {
  LC_DISPATCH(isa, depthwise_rows, job, from, to)
}

class DepthwisePlan {
 public:
  // weight is (channels, kernel height, kernel width).
  DepthwisePlan(const Array<float>& weight, const std::optional<Array<float>>& bias, Pair stride,
                Pair dilation, const std::optional<std::string>& activation)
      : isa_(active_isa()),
        window_({0, 0}, stride, {0, 0}, dilation),
        activation_(activation_named(activation)) {
    require(weight.ndim() == 3 && weight.size() > 0,
            "weight must be (channels, kernel height, kernel width), none of them 0");
    channels_ = weight.shape(0);
    window_.kernel = {weight.shape(1), weight.shape(2)};
    const int64_t lanes = isa_lanes(isa_), taps = weight.shape(1) * weight.shape(2);
    const int64_t padded = (channels_ + lanes - 1) / lanes * lanes;
    bias_ = padded_bias(bias, channels_, padded);
    weights_.resize(static_cast<size_t>(taps * padded), 0.f);
    for (int64_t c = 0; c < channels_; ++c)
      for (int64_t tap = 0; tap < taps; ++tap)
        weights_[static_cast<size_t>((c / lanes * taps + tap) * lanes + c % lanes)] =
            weight.data()[c * taps + tap];
  }

  // The shape of out says how many outputs there are: outside of x the window sees zeros.
  void run(const py::array& x, Pair padding, py::array out, int threads) const {
    const bool bf16 = is_bf16(x, "x");
    const Window window(window_.kernel, window_.stride, padding, window_.dilation);
    const DepthwiseJob job{window.over(x, out, bf16, channels_, channels_),
                           x.data(),
                           out.mutable_data(),
                           bf16,
                           weights_.data(),
                           bias_.data(),
                           activation_};
    const int64_t rows = job.images * job.out_height;
    py::gil_scoped_release unlocked;
    parallel_for((rows + kRowsAtOnce - 1) / kRowsAtOnce, threads, 0, [&](int64_t task, float*) {
      compute(isa_, job, task * kRowsAtOnce, std::min(rows, (task + 1) * kRowsAtOnce));
    });
  }

 private:
  Isa isa_;
  Window window_;
  Activation activation_;
  int64_t channels_;
  std::vector<float> weights_, bias_;
};

}  // namespace

void bind_depthwise(py::module_& module) {
  py::class_<DepthwisePlan>(module, "DepthwisePlan",
                            "A depthwise convolution; see ops.DepthwisePlan.")
      .def(py::init<const Array<float>&, const std::optional<Array<float>>&, Pair, Pair,
                    const std::optional<std::string>&>(),
           py::arg("weight"), py::arg("bias"), py::arg("stride"), py::arg("dilation"),
           py::arg("activation"))
      .def("run", &DepthwisePlan::run, py::arg("x"), py::arg("padding"), py::arg("out").noconvert(),
           py::arg("threads"));
}

}  // namespace lc
