// rms_norm: rows over threads.
#include "bindings/arrays.h"
#include "common/parallel.h"
#include "rms_norm/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

constexpr int64_t kRows = 16;  // of a task

void compute(Isa isa, const RmsNormJob& job, int64_t from, int64_t to) {
  LC_DISPATCH(isa, rms_norm, job, from, to)
}

void run(const py::array& x, const Array<float>& weight, float eps, py::array out, int threads) {
  const Features rows(x, "x");
  require(rows.dims > 0 && weight.ndim() == 1 && weight.shape(0) == rows.dims,
          "weight must have one number per dim of x");
  require(is_bf16(out, "out") == rows.bf16 && out.size() == x.size() && out.writeable(),
          "out must be writable and like x");
  const RmsNormJob job{rows.data, weight.data(), out.mutable_data(), rows.bf16, rows.dims, eps};
  const int64_t count = rows.leading * rows.samples;
  const Isa isa = active_isa();
  py::gil_scoped_release unlocked;
  parallel_for((count + kRows - 1) / kRows, threads, 0, [&](int64_t task, float*) {
    compute(isa, job, task * kRows, std::min(count, (task + 1) * kRows));
  });
}

}  // namespace

void bind_rms_norm(py::module_& module) {
  module.def("rms_norm", &run, py::arg("x"), py::arg("weight"), py::arg("eps"),
             py::arg("out").noconvert(), py::arg("threads"),
             "x / sqrt(mean of x^2 + eps) * weight, row by row; see ops.layers.rms_norm.");
}

}  // namespace lc
