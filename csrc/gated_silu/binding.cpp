// gated_silu: chunks of numbers over threads.
#include "bindings/arrays.h"
#include "common/parallel.h"
#include "gated_silu/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

constexpr int64_t kChunk = 16 * 1024;  // numbers of a task

void compute(Isa isa, const GatedSiluJob& job, int64_t from, int64_t to) {
  LC_DISPATCH(isa, gated_silu, job, from, to)
}

void run(const py::array& gate, const py::array& up, py::array out, int threads) {
  const bool bf16 = is_bf16(gate, "gate");
  const int64_t size = gate.size();
  require(is_bf16(up, "up") == bf16 && up.size() == size, "up must be like gate");
  require(is_bf16(out, "out") == bf16 && out.size() == size && out.writeable(),
          "out must be writable and like gate");
  const GatedSiluJob job{gate.data(), up.data(), out.mutable_data(), bf16, size};
  const Isa isa = active_isa();
  py::gil_scoped_release unlocked;
  parallel_for((size + kChunk - 1) / kChunk, threads, 0, [&](int64_t task, float*) {
    compute(isa, job, task * kChunk, std::min(size, (task + 1) * kChunk));
  });
}

}  // namespace

void bind_gated_silu(py::module_& module) {
  module.def("gated_silu", &run, py::arg("gate"), py::arg("up"), py::arg("out").noconvert(),
             py::arg("threads"), "gate / (1 + e^-gate) * up; see ops.layers.gated_silu.");
}

}  // namespace lc
