// Int8ConvolutionPlan: a convolution's weights quantized once, then any number of inputs.
#include "bindings/convolutions.h"
#include "bindings/quantized_layer.h"
#include "int8_convolution/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

void compute(Isa isa, const Int8ConvolutionJob& job, int64_t band,
             float* scratch){LC_DISPATCH(isa, int8_band, job, band, scratch)}

QuantizedLayer quantized(Isa isa, const py::array& weight, const std::optional<Array<float>>& bias,
                         const std::optional<std::string>& activation, int threads) {
  require(weight.ndim() == 3 && weight.shape(1) > 0 && weight.shape(2) > 0 &&
              weight.shape(1) * weight.shape(2) <= kMaxInt8Inputs,
          "weight must be (outputs, taps, channels), with 1 to 65536 taps and channels");
  check_bias(bias, weight.shape(0));
  const bool bf16 = is_bf16(weight, "weight");
  const int64_t outputs = weight.shape(0), inputs = weight.shape(1) * weight.shape(2);
  const Activation known = activation_named(activation);
  const void* given = weight.data();
  const float* shift = data_or_null(bias);
  py::gil_scoped_release unlocked;
  return {isa, outputs, inputs, known, given, bf16, shift, threads};
}

class Int8ConvolutionPlan {
 public:
  // weight is (outputs, taps, channels), taps [row][column] of a kernel `kernel_width` wide.
  Int8ConvolutionPlan(const py::array& weight, const std::optional<Array<float>>& bias,
                      int64_t kernel_width, Pair stride, Pair padding, Pair dilation,
                      const std::optional<std::string>& activation, int threads)
      : isa_(active_isa()),
        held_(quantized(isa_, weight, bias, activation, threads)),
        bf16_(is_bf16(weight, "weight")),
        channels_(weight.shape(2)),
        window_(kernel_of(weight, kernel_width), stride, padding, dilation) {}

  // x is (images, height, width, channels), out (images, out height, out width, outputs).
  void run(const py::array& x, py::array out, int threads) const {
    const Int8ConvolutionJob job{window_.filling(x, out, bf16_, channels_, held_.layer.outputs),
                                 held_.layer,
                                 bf16_,
                                 isa_multiplies_int8(isa_),
                                 x.data(),
                                 out.mutable_data()};
    if (out.size() == 0) return;
    py::gil_scoped_release unlocked;
    parallel_for(
        job.images * job.bands(), threads, job.scratch(),
        [&](int64_t band, float* scratch) { compute(isa_, job, band, scratch); },
        Memory::uninitialized);
  }

 private:
  Isa isa_;
  QuantizedLayer held_;
  bool bf16_;
  int64_t channels_;
  Window window_;
};

}  // namespace

void bind_int8_convolution(py::module_& module) {
  py::class_<Int8ConvolutionPlan>(module, "Int8ConvolutionPlan",
                                  "A convolution's quantized weights; see ops.Int8ConvolutionPlan.")
      .def(py::init<const py::array&, const std::optional<Array<float>>&, int64_t, Pair, Pair, Pair,
                    const std::optional<std::string>&, int>(),
           py::arg("weight"), py::arg("bias"), py::arg("kernel_width"), py::arg("stride"),
           py::arg("padding"), py::arg("dilation"), py::arg("activation"), py::arg("threads"))
      .def("run", &Int8ConvolutionPlan::run, py::arg("x"), py::arg("out").noconvert(),
           py::arg("threads"));
}

}  // namespace lc
