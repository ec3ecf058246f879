// TransformerBlockPlan: a transformer's block in int8, one sample at a time.
//
// A sample's activations are a few hundred KiB and stay in the second-level cache of its thread; a
// whole batch's would go through memory five times.
#include <algorithm>
#include <memory>

#include "attention/kernel.h"
#include "attention_int8/kernel.h"
#include "bindings/arrays.h"
#include "common/parallel.h"
#include "int8_linear/plan.h"
#include "simd/isa.h"

namespace lc {
namespace {

void compute_int8(Isa isa, const AttentionJob& job, int64_t head, float* scratch) {
  LC_DISPATCH(isa, attention_int8, job, head, scratch)
}

void compute_floats(Isa isa, const AttentionJob& job, int64_t head, float* scratch) {
  LC_DISPATCH(isa, attention, job, head, scratch)
}

// Without VNNI int8 would be slower.
void compute_attention(Isa isa, const AttentionJob& job, int64_t head, float* scratch) {
  isa_multiplies_int8(isa) ? compute_int8(isa, job, head, scratch)
                           : compute_floats(isa, job, head, scratch);
}

int64_t scratch_of(const AttentionJob& job) {
  return std::max(attention_scratch(job), attention_int8_scratch(job));
}

void compute_rows(const Int8LinearPlan& plan, const Int8Job& job, int64_t rows, float* scratch) {
  for (int64_t first = 0; first < rows; first += kInt8Rows)
    plan.compute(job, first, std::min(kInt8Rows, rows - first), scratch);
}

using Layers = std::shared_ptr<const Int8LinearPlan>;

class TransformerBlockPlan {
 public:
  TransformerBlockPlan(Layers qkv, Layers projection, Layers mlp, int64_t heads, float scale)
      : isa_(active_isa()),
        qkv_(std::move(qkv)),
        projection_(std::move(projection)),
        mlp_(std::move(mlp)),
        heads_(heads),
        scale_(scale) {
    require(qkv_ && projection_ && mlp_, "qkv, projection and mlp must be plans");
    const int64_t mixed = projection_->inputs(), dims = qkv_->inputs();
    require(heads > 0 && mixed % heads == 0 && qkv_->outputs() == 3 * mixed,
            "qkv must have three times the inputs of projection as outputs, in whole heads");
    require(projection_->outputs() == dims && mlp_->inputs() == dims && mlp_->outputs() == dims,
            "projection and mlp must have the inputs of qkv as outputs");
    require(projection_->bf16() == qkv_->bf16() && mlp_->bf16() == qkv_->bf16(),
            "qkv, projection and mlp must have one dtype");
  }

  // x and out are (samples, tokens, dims).
  void run(const py::array& x, py::array out, int threads) const {
    const int64_t dims = qkv_->inputs();
    const bool bf16 = qkv_->bf16();
    require(x.ndim() == 3 && x.shape(2) == dims && x.shape(1) > 0,
            "x must be (samples, tokens, dims) with a token");
    require(is_bf16(x, "x") == bf16, "x must have the dtype of the weights");
    require(is_bf16(out, "out") == bf16 && out.ndim() == 3 && out.writeable() &&
                std::equal(x.shape(), x.shape() + 3, out.shape()),
            "out must be a writable array like x");
    const int64_t samples = x.shape(0), tokens = x.shape(1);
    const int64_t element = bf16 ? 2 : 4, bytes = tokens * dims * element;
    const auto* from = static_cast<const char*>(x.data());
    auto* to = static_cast<char*>(out.mutable_data());
    const Layout layout = layout_of(tokens, element);
    py::gil_scoped_release unlocked;
    parallel_for(samples, threads, layout.end, [&](int64_t sample, float* scratch) {
      run_sample(from + sample * bytes, to + sample * bytes, tokens, element, layout, scratch);
    });
  }

 private:
  // Offsets into the scratch memory, in floats, in whole cache lines.
  struct Layout {
    int64_t rows, qkv, mixed, end;
  };

  Layout layout_of(int64_t tokens, int64_t element) const {
    const int64_t rows = std::max({qkv_->job(nullptr, nullptr, nullptr).scratch(),
                                   projection_->job(nullptr, nullptr, nullptr).scratch(),
                                   mlp_->job(nullptr, nullptr, nullptr).scratch()});
    Layout layout{};
    layout.rows = floats_in_lines(4 * scratch_of(attention_job(nullptr, nullptr, tokens)));
    layout.qkv = layout.rows + floats_in_lines(4 * rows);
    layout.mixed = layout.qkv + floats_in_lines(tokens * qkv_->outputs() * element);
    layout.end = layout.mixed + floats_in_lines(tokens * projection_->inputs() * element);
    return layout;
  }

  AttentionJob attention_job(char* qkv, char* mixed, int64_t tokens) const {
    const bool bf16 = qkv_->bf16();
    const int64_t each = projection_->inputs() * (bf16 ? 2 : 4);  // bytes of a token's queries
    const int64_t dims = projection_->inputs() / heads_;
    const auto heads_of = [&](int64_t part) {
      return Tokens{qkv + part * each, 0, each / heads_, 3 * each};
    };
    return {heads_of(0), heads_of(1),
            heads_of(2), Tokens{mixed, 0, each / heads_, each},
            bf16,        bf16 && isa_multiplies_bfloat16(isa_),
            false,       heads_,
            tokens,      tokens,
            dims,        dims,
            scale_,      1};
  }

  void run_sample(const char* x, char* out, int64_t tokens, int64_t element, const Layout& layout,
                  float* scratch) const {
    float* rows = scratch + layout.rows;
    char* qkv = reinterpret_cast<char*>(scratch + layout.qkv);
    char* mixed = reinterpret_cast<char*>(scratch + layout.mixed);
    compute_rows(*qkv_, qkv_->job(x, qkv, nullptr), tokens, rows);
    const AttentionJob attention = attention_job(qkv, mixed, tokens);
    for (int64_t head = 0; head < heads_; ++head) compute_attention(isa_, attention, head, scratch);
    compute_rows(*projection_, projection_->job(mixed, out, x), tokens, rows);
    compute_rows(*mlp_, mlp_->job(out, out, out), tokens, rows);
  }

  Isa isa_;
  Layers qkv_, projection_, mlp_;
  int64_t heads_;
  float scale_;
};

}  // namespace

void bind_transformer_block(py::module_& module) {
  py::class_<TransformerBlockPlan>(module, "TransformerBlockPlan",
                                   "A transformer's block in int8; see ops.TransformerBlockPlan.")
      .def(py::init<std::shared_ptr<Int8LinearPlan>, std::shared_ptr<Int8LinearPlan>,
                    std::shared_ptr<Int8LinearPlan>, int64_t, float>(),
           py::arg("qkv"), py::arg("projection"), py::arg("mlp"), py::arg("heads"),
           py::arg("scale"))
      .def("run", &TransformerBlockPlan::run, py::arg("x"), py::arg("out").noconvert(),
           py::arg("threads"));
}

}  // namespace lc
