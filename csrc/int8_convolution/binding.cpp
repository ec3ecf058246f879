// Int8ConvolutionPlan: a convolution's weights rounded to 8 bits, then any number of inputs.
#include <algorithm>
#include <array>

#include "bindings/arrays.h"
#include "common/int8_rounded.h"
#include "int8_convolution/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

using Pair = std::array<int64_t, 2>;

void compute(Isa isa, const Int8Pixels& job, int64_t band,
             float* scratch){LC_DISPATCH(isa, int8_band, job, band, scratch)}

RoundedLayer rounded(Isa isa, const py::array& weight, const std::optional<Array<float>>& bias,
                     const std::optional<std::string>& activation, int threads) {
  require(weight.ndim() == 3 && weight.shape(1) > 0 && weight.shape(2) > 0 &&
              weight.shape(1) * weight.shape(2) <= kMostInt8Inputs,
          "weight must be (outputs, taps, channels), with 1 to 65536 taps and channels");
  require(!bias || (bias->ndim() == 1 && bias->shape(0) == weight.shape(0)),
          "bias must be (outputs)");
  const bool bits16 = is_bits16(weight, "weight");
  const int64_t outputs = weight.shape(0), inputs = weight.shape(1) * weight.shape(2);
  const Activation known = activation_named(activation);
  const void* given = weight.data();
  const float* shift = data_or_null(bias);
  py::gil_scoped_release unlocked;
  return {isa, outputs, inputs, known, given, bits16, shift, threads};
}

class Int8ConvolutionPlan {
 public:
  // weight is (outputs, taps, channels), taps [row][column] of a kernel `kernel_width` wide.
  Int8ConvolutionPlan(const py::array& weight, const std::optional<Array<float>>& bias,
                      int64_t kernel_width, Pair stride, Pair padding, Pair dilation,
                      const std::optional<std::string>& activation, int threads)
      : isa_(active_isa()),
        held_(rounded(isa_, weight, bias, activation, threads)),
        bits16_(is_bits16(weight, "weight")),
        channels_(weight.shape(2)),
        kernel_{0, kernel_width},
        stride_(stride),
        padding_(padding),
        dilation_(dilation) {
    require(kernel_width > 0 && weight.shape(1) % kernel_width == 0,
            "kernel_width must divide the taps");
    require(std::min(stride[0], stride[1]) > 0 && std::min(padding[0], padding[1]) >= 0 &&
                std::min(dilation[0], dilation[1]) > 0,
            "stride and dilation must be positive, padding not negative");
    kernel_[0] = weight.shape(1) / kernel_width;
  }

  // x is (images, height, width, channels), out (images, out height, out width, outputs).
  void run(const py::array& x, py::array out, int threads) const {
    require(x.ndim() == 4 && x.shape(3) == channels_,
            "x must be (images, height, width, channels)");
    require(is_bits16(x, "x") == bits16_, "x must have the dtype of the weight");
    const auto after = [&](size_t i) {
      const int64_t reach =
          x.shape(static_cast<int>(i) + 1) + 2 * padding_[i] - dilation_[i] * (kernel_[i] - 1) - 1;
      return reach < 0 ? 0 : reach / stride_[i] + 1;
    };
    const Int8Pixels job{held_.layer,
                         bits16_,
                         isa_multiplies_int8(isa_),
                         x.data(),
                         out.mutable_data(),
                         x.shape(0),
                         x.shape(1),
                         x.shape(2),
                         channels_,
                         after(0),
                         after(1),
                         {kernel_[0], kernel_[1]},
                         {stride_[0], stride_[1]},
                         {padding_[0], padding_[1]},
                         {dilation_[0], dilation_[1]}};
    require(is_bits16(out, "out") == bits16_ && out.ndim() == 4 && out.writeable() &&
                out.shape(0) == job.images && out.shape(1) == job.out_height &&
                out.shape(2) == job.out_width && out.shape(3) == held_.layer.outputs,
            "out must be a writable (images, out height, out width, outputs) array like x");
    if (out.size() == 0) return;
    py::gil_scoped_release unlocked;
    parallel_for(
        job.images * job.bands(), threads, job.scratch(),
        [&](int64_t band, float* scratch) { compute(isa_, job, band, scratch); }, Memory::as_it_is);
  }

 private:
  Isa isa_;
  RoundedLayer held_;
  bool bits16_;
  int64_t channels_;
  Pair kernel_, stride_, padding_, dilation_;
};

}  // namespace

void bind_int8_convolution(py::module_& module) {
  py::class_<Int8ConvolutionPlan>(module, "Int8ConvolutionPlan",
                                  "A convolution's weights in 8 bits; see ops.Int8ConvolutionPlan.")
      .def(py::init<const py::array&, const std::optional<Array<float>>&, int64_t, Pair, Pair, Pair,
                    const std::optional<std::string>&, int>(),
           py::arg("weight"), py::arg("bias"), py::arg("kernel_width"), py::arg("stride"),
           py::arg("padding"), py::arg("dilation"), py::arg("activation"), py::arg("threads"))
      .def("run", &Int8ConvolutionPlan::run, py::arg("x"), py::arg("out").noconvert(),
           py::arg("threads"));
}

}  // namespace lc
