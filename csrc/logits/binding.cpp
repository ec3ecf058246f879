// take_logits: rows of a tile of logits over threads.
#include "bindings/arrays.h"
#include "common/parallel.h"
#include "logits/kernel.h"
#include "simd/isa.h"

namespace lc {
namespace {

constexpr int64_t kChunk = 32;  // rows of a task

void take(Isa isa, const LogitsJob& job, int64_t from, int64_t to) {
  LC_DISPATCH(isa, take_logits, job, from, to)
}

float* column(std::optional<Array<float>>& values, int64_t rows, const char* message) {
  if (!values) return nullptr;
  require(values->ndim() == 1 && values->shape(0) == rows && values->writeable(), message);
  return values->mutable_data();
}

void run(const Array<uint16_t>& logits, const std::optional<Array<uint16_t>>& lost,
         const std::optional<Array<float>>& bias, const std::optional<Array<int64_t>>& labels,
         int64_t first, std::optional<Array<float>> largest, std::optional<Array<float>> total,
         std::optional<Array<float>> moment, std::optional<Array<float>> chosen, int threads) {
  require(logits.ndim() == 2, "logits must be (rows, classes)");
  const int64_t rows = logits.shape(0), classes = logits.shape(1);
  require(!lost || (lost->ndim() == 2 && lost->shape(0) == rows && lost->shape(1) == classes),
          "lost must be like logits");
  check_bias(bias, classes);
  require(!labels || (labels->ndim() == 1 && labels->shape(0) == rows), "labels must be (rows)");
  const char* message = "largest, total, moment and chosen must be writable (rows) arrays";
  require(largest && total && chosen, message);
  const LogitsJob job{logits.data(),
                      data_or_null(lost),
                      data_or_null(bias),
                      data_or_null(labels),
                      classes,
                      first,
                      column(largest, rows, message),
                      column(total, rows, message),
                      column(moment, rows, message),
                      column(chosen, rows, message)};
  const Isa isa = active_isa();
  py::gil_scoped_release unlocked;
  parallel_for((rows + kChunk - 1) / kChunk, threads, 0, [&](int64_t task, float*) {
    take(isa, job, task * kChunk, std::min(rows, (task + 1) * kChunk));
  });
}

}  // namespace

void bind_logits(py::module_& module) {
  module.def("take_logits", &run, py::arg("logits"), py::arg("lost"), py::arg("bias"),
             py::arg("labels"), py::arg("first"), py::arg("largest").noconvert(),
             py::arg("total").noconvert(), py::arg("moment").noconvert(),
             py::arg("chosen").noconvert(), py::arg("threads"),
             "Takes a tile of bfloat16 logits into the softmax of its rows; see "
             "ops.softmax_tiles.");
}

}  // namespace lc
