// DepthwisePlan: a kernel for each channel, then any number of inputs.
#include <algorithm>
#include <array>
#include <vector>

#include "bindings/arrays.h"
#include "common/parallel.h"
#include "depthwise/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

using Pair = std::array<int64_t, 2>;

// Rows that a thread computes one after the other, as they share inputs.
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
        stride_(stride),
        dilation_(dilation),
        activation_(activation_named(activation)) {
    require(weight.ndim() == 3 && weight.size() > 0,
            "weight must be (channels, kernel height, kernel width), none of them 0");
    require(std::min(stride[0], stride[1]) > 0 && std::min(dilation[0], dilation[1]) > 0,
            "stride and dilation must be positive");
    channels_ = weight.shape(0);
    kernel_ = {weight.shape(1), weight.shape(2)};
    require(!bias || (bias->ndim() == 1 && bias->shape(0) == channels_), "bias must be (channels)");
    const int64_t lanes = isa_lanes(isa_), taps = kernel_[0] * kernel_[1];
    room_ = (channels_ + lanes - 1) / lanes * lanes;
    weights_.resize(static_cast<size_t>(taps * room_), 0.f);
    for (int64_t c = 0; c < channels_; ++c)
      for (int64_t tap = 0; tap < taps; ++tap)
        weights_[static_cast<size_t>(tap * room_ + c)] = weight.data()[c * taps + tap];
    bias_.resize(static_cast<size_t>(room_), 0.f);
    if (bias) std::copy_n(bias->data(), channels_, bias_.begin());
  }

  // x is (images, height, width, channels), out (images, out height, out width, channels); padding
  // is above and to the left, and what lies outside of x is 0.
  void run(const py::array& x, Pair padding, py::array out, int threads) const {
    const bool bits16 = is_bits16(x, "x");
    require(x.ndim() == 4 && x.shape(3) == channels_,
            "x must be (images, height, width, channels)");
    require(std::min(padding[0], padding[1]) >= 0, "padding must not be negative");
    require(is_bits16(out, "out") == bits16 && out.ndim() == 4 && out.writeable() &&
                out.shape(0) == x.shape(0) && out.shape(3) == channels_,
            "out must be a writable (images, out height, out width, channels) array like x");
    const DepthwiseJob job{x.data(),
                           out.mutable_data(),
                           bits16,
                           weights_.data(),
                           bias_.data(),
                           room_,
                           activation_,
                           x.shape(0),
                           x.shape(1),
                           x.shape(2),
                           channels_,
                           out.shape(1),
                           out.shape(2),
                           {kernel_[0], kernel_[1]},
                           {stride_[0], stride_[1]},
                           {dilation_[0], dilation_[1]},
                           {padding[0], padding[1]}};
    const int64_t rows = job.images * job.out_height;
    py::gil_scoped_release unlocked;
    parallel_for((rows + kRowsAtOnce - 1) / kRowsAtOnce, threads, 0, [&](int64_t task, float*) {
      compute(isa_, job, task * kRowsAtOnce, std::min(rows, (task + 1) * kRowsAtOnce));
    });
  }

 private:
  Isa isa_;
  Pair stride_, dilation_, kernel_;
  Activation activation_;
  int64_t channels_, room_;
  std::vector<float> weights_, bias_;
};

}  // namespace

void bind_depthwise(py::module_& module) {
  py::class_<DepthwisePlan>(module, "DepthwisePlan",
                            "A convolution of each channel; see ops.DepthwisePlan.")
      .def(py::init<const Array<float>&, const std::optional<Array<float>>&, Pair, Pair,
                    const std::optional<std::string>&>(),
           py::arg("weight"), py::arg("bias"), py::arg("stride"), py::arg("dilation"),
           py::arg("activation"))
      .def("run", &DepthwisePlan::run, py::arg("x"), py::arg("padding"), py::arg("out").noconvert(),
           py::arg("threads"));
}

}  // namespace lc
