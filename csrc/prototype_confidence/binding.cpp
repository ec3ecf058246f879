// PrototypePlan: class prototypes packed once, then any number of batches.
#include <algorithm>
#include <cmath>
#include <string>

#include "bindings/arrays.h"
#include "common/parallel.h"
#include "prototype_confidence/kernel.h"
#include "simd/isa.h"
#include "simd/log2e.h"

namespace lc {
namespace {

constexpr double kMinNorm = 1e-12;  // as in the reference

void score(Isa isa, const PrototypeJob& job, int64_t row,
           float* scratch){LC_DISPATCH(isa, prototype_confidence, job, row, scratch)}

Logit logit_named(const std::string& name) {
  if (name == "inverse_distance") return Logit::inverse_distance;
  if (name == "neg_sq_distance") return Logit::neg_sq_distance;
  require(name == "cosine", "logit must be inverse_distance, neg_sq_distance or cosine");
  return Logit::cosine;
}

class PrototypePlan {
 public:
  PrototypePlan(const Array<float>& prototypes, const std::string& logit, double temperature)
      : isa_(active_isa()),
        classes_(prototypes.ndim() == 2 ? prototypes.shape(0) : 0),
        dims_(prototypes.ndim() == 2 ? prototypes.shape(1) : 0),
        logit_(logit_named(logit)),
        scale_(static_cast<float>(kLog2E / temperature)),
        packed_(packed_size(classes_, dims_)) {
    require(classes_ > 0, "prototypes must be (classes, dims) with a class");
    require(temperature > 0, "temperature must be positive");
    for (int64_t c = 0; c < classes_; ++c) {
      const float* row = prototypes.data() + c * dims_;
      double squares = 0;
      for (int64_t d = 0; d < dims_; ++d) squares += static_cast<double>(row[d]) * row[d];
      const double length = logit_ == Logit::cosine ? std::max(std::sqrt(squares), kMinNorm) : 1.;
      for (int64_t d = 0; d < dims_; ++d)
        packed_.data[packed_index(c, d, dims_)] = static_cast<float>(row[d] / length);
    }
  }

  void run(const py::array& features, const std::optional<Array<int64_t>>& labels,
           Array<float> log_probs, int threads) const {
    const Features x(features);
    require(x.dims == dims_, "features must be (sub_models, samples, dims)");
    check_batch(labels, log_probs, x.leading, x.samples, classes_);
    const int64_t rows = x.leading * x.samples;
    const PrototypeJob job{packed_.data.get(),
                           classes_,
                           dims_,
                           logit_,
                           scale_,
                           x.data,
                           x.bf16,
                           rows,
                           data_or_null(labels),
                           x.samples,
                           log_probs.mutable_data()};
    py::gil_scoped_release unlocked;
    parallel_for((rows + kRows - 1) / kRows, threads, prototype_scratch(dims_),
                 [&](int64_t task, float* scratch) { score(isa_, job, task * kRows, scratch); });
  }

 private:
  Isa isa_;
  int64_t classes_, dims_;
  Logit logit_;
  float scale_;
  AlignedFloats packed_;
};

}  // namespace

void bind_prototype(py::module_& module) {
  py::class_<PrototypePlan>(module, "PrototypePlan",
                            "Class prototypes, packed; see ops.PrototypePlan.")
      .def(py::init<const Array<float>&, const std::string&, double>(), py::arg("prototypes"),
           py::arg("logit"), py::arg("temperature"))
      .def("run", &PrototypePlan::run, py::arg("features"), py::arg("labels"),
           py::arg("log_probs").noconvert(), py::arg("threads"));
}

}  // namespace lc
