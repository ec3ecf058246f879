// Checks that the bindings of convolutions and of pooling share.
#pragma once
#include <algorithm>
#include <array>

#include "bindings/arrays.h"
#include "common/conv_geometry.h"

namespace lc {

using Pair = std::array<int64_t, 2>;  // rows, columns

// The size of a kernel whose weight is (outputs, taps, channels), taps [row][column].
inline Pair kernel_of(const py::array& weight, int64_t kernel_width) {
  require(kernel_width > 0 && weight.shape(1) % kernel_width == 0,
          "kernel_width must divide the taps");
  return {weight.shape(1) / kernel_width, kernel_width};
}

// A window before it meets images.
struct Window {
  Pair kernel, stride, padding, dilation;

  Window(Pair size, Pair step, Pair pad, Pair dilate)
      : kernel(size), stride(step), padding(pad), dilation(dilate) {
    require(std::min(stride[0], stride[1]) > 0 && std::min(dilation[0], dilation[1]) > 0 &&
                std::min(padding[0], padding[1]) >= 0,
            "stride and dilation must be positive, padding not negative");
  }

  // Outputs along one axis of an image.
  int64_t outputs(size_t axis, int64_t size) const {
    const int64_t reach = size + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1;
    return reach < 0 ? 0 : reach / stride[axis] + 1;
  }

  // Checks x, (images, height, width, channels), and out, (images, out height, out width, outputs)
  // of any height and width.
  ConvGeometry over(const py::array& x, const py::array& out, bool bf16, int64_t channels,
                    int64_t outputs) const {
    require(x.ndim() == 4 && x.shape(3) == channels, "x must be (images, height, width, channels)");
    require(is_bf16(x, "x") == bf16, "x must have the dtype of the weight");
    require(is_bf16(out, "out") == bf16 && out.ndim() == 4 && out.writeable() &&
                out.shape(0) == x.shape(0) && out.shape(3) == outputs,
            "out must be a writable (images, out height, out width, outputs) array like x");
    return {x.shape(0),
            x.shape(1),
            x.shape(2),
            channels,
            out.shape(1),
            out.shape(2),
            {kernel[0], kernel[1]},
            {stride[0], stride[1]},
            {padding[0], padding[1]},
            {dilation[0], dilation[1]}};
  }

  // The same where all of out's height and width follow from x.
  ConvGeometry filling(const py::array& x, const py::array& out, bool bf16, int64_t channels,
                       int64_t outputs_per_pixel) const {
    const ConvGeometry found = over(x, out, bf16, channels, outputs_per_pixel);
    require(
        found.out_height == outputs(0, found.height) && found.out_width == outputs(1, found.width),
        "out must have as many rows and columns as the window has places in x");
    return found;
  }
};

}  // namespace lc
