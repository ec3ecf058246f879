// max_pool: rows of all pictures over threads.
#include <array>

#include "bindings/arrays.h"
#include "common/parallel.h"
#include "max_pool/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

using Pair = std::array<int64_t, 2>;

void compute(Isa isa, const MaxPoolJob& job, int64_t row) {
  LC_DISPATCH(isa, max_pool_row, job, row)
}

void run(const py::array& x, Pair kernel, Pair stride, Pair padding, bool relu, py::array out,
         int threads) {
  const bool bits16 = is_bits16(x, "x");
  require(x.ndim() == 4, "x must be (images, height, width, channels)");
  int64_t after[2];
  for (size_t i = 0; i < 2; ++i) {
    require(kernel[i] > 0 && stride[i] > 0 && padding[i] >= 0 && 2 * padding[i] <= kernel[i],
            "kernel and stride must be positive, padding at most half of the kernel");
    const int64_t reach = x.shape(static_cast<int>(i) + 1) + 2 * padding[i] - kernel[i];
    require(reach >= 0, "x has fewer pixels than the kernel spans");
    after[i] = reach / stride[i] + 1;
  }
  require(is_bits16(out, "out") == bits16 && out.ndim() == 4 && out.writeable() &&
              out.shape(0) == x.shape(0) && out.shape(1) == after[0] && out.shape(2) == after[1] &&
              out.shape(3) == x.shape(3),
          "out must be a writable (images, out height, out width, channels) array like x");
  const MaxPoolJob job{x.data(),
                       out.mutable_data(),
                       bits16,
                       relu,
                       x.shape(0),
                       x.shape(1),
                       x.shape(2),
                       x.shape(3),
                       after[0],
                       after[1],
                       {kernel[0], kernel[1]},
                       {stride[0], stride[1]},
                       {padding[0], padding[1]}};
  const Isa isa = active_isa();
  py::gil_scoped_release unlocked;
  parallel_for(job.images * job.out_height, threads, 0,
               [&](int64_t row, float*) { compute(isa, job, row); });
}

}  // namespace

void bind_max_pool(py::module_& module) {
  module.def("max_pool", &run, py::arg("x"), py::arg("kernel"), py::arg("stride"),
             py::arg("padding"), py::arg("relu"), py::arg("out").noconvert(), py::arg("threads"),
             "The largest number in each window; see ops.max_pool.");
}

}  // namespace lc
