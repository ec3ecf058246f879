// max_pool: rows of all images over threads.
#include "bindings/convolutions.h"
#include "common/parallel.h"
#include "max_pool/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

void compute(Isa isa, const MaxPoolJob& job, int64_t row) {
  LC_DISPATCH(isa, max_pool_row, job, row)
}

void run(const py::array& x, Pair kernel, Pair stride, Pair padding, bool relu, py::array out,
         int threads) {
  const bool bf16 = is_bf16(x, "x");
  require(x.ndim() == 4, "x must be (images, height, width, channels)");
  for (size_t i = 0; i < 2; ++i)
    require(kernel[i] > 0 && 2 * padding[i] <= kernel[i],
            "kernel must be positive, padding at most half of it");
  const Window window(kernel, stride, padding, {1, 1});
  const int64_t channels = x.shape(3);
  const MaxPoolJob job{window.filling(x, out, bf16, channels, channels), x.data(),
                       out.mutable_data(), bf16, relu};
  const Isa isa = active_isa();
  py::gil_scoped_release unlocked;
  parallel_for(job.images * job.out_height, threads, 0,
               [&](int64_t row, float*) { compute(isa, job, row); });
}

}  // namespace

void bind_max_pool(py::module_& module) {
  module.def("max_pool", &run, py::arg("x"), py::arg("kernel"), py::arg("stride"),
             py::arg("padding"), py::arg("relu"), py::arg("out").noconvert(), py::arg("threads"),
             "The maximum of each window; see ops.max_pool.");
}

}  // namespace lc
