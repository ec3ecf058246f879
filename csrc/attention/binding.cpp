// attention: heads over threads, and parts of a head's queries where heads are few.
#include <algorithm>
#include <string>

#include "attention/kernel.h"
#include "bindings/arrays.h"
#include "common/parallel.h"
#include "simd/isa.h"

namespace lc {
namespace {

void compute(Isa isa, const AttentionJob& job, int64_t task, float* scratch) {
  LC_DISPATCH(isa, attention, job, task, scratch)
}

// Tasks per thread, so that none waits long for the last.
constexpr int64_t kTasksPerThread = 4;

// Any strides but the last, which must be 1 element.
Tokens tokens_of(const py::array& array, const std::string& name, bool bf16) {
  const bool fits = bf16 ? py::isinstance<py::array_t<uint16_t>>(array)
                         : py::isinstance<py::array_t<float>>(array);
  if (!fits) throw std::invalid_argument(name + " must have the dtype of q");
  if (array.ndim() != 4)
    throw std::invalid_argument(name + " must be (batches, heads, tokens, dims)");
  if (array.size() > 0 && array.shape(3) > 1 && array.strides(3) != array.itemsize())
    throw std::invalid_argument(name + " must have contiguous dims");
  return {static_cast<char*>(const_cast<void*>(array.data())), array.strides(0), array.strides(1),
          array.strides(2)};
}

void run(const py::array& q, const py::array& k, const py::array& v, float scale, py::array out,
         int threads, bool causal) {
  const bool bf16 = py::isinstance<py::array_t<uint16_t>>(q);
  require(bf16 || py::isinstance<py::array_t<float>>(q),
          "q must be float32, or bfloat16 bits as uint16");
  const Isa isa = active_isa();
  AttentionJob job{tokens_of(q, "q", bf16),
                   tokens_of(k, "k", bf16),
                   tokens_of(v, "v", bf16),
                   tokens_of(out, "out", bf16),
                   bf16,
                   bf16 && isa_multiplies_bfloat16(isa),
                   causal,
                   q.shape(1),
                   q.shape(2),
                   k.shape(2),
                   q.shape(3),
                   v.shape(3),
                   scale,
                   1};
  const int64_t batches = q.shape(0);
  const auto is = [&](const py::array& array, int64_t tokens, int64_t dims) {
    return array.shape(0) == batches && array.shape(1) == job.heads && array.shape(2) == tokens &&
           array.shape(3) == dims;
  };
  require(job.keys > 0 && job.dims > 0, "k must have a token and a dim");
  require(!causal || job.queries <= job.keys, "causal: k must have as many tokens as q, or more");
  require(is(k, job.keys, job.dims), "k must be (batches, heads, keys, dims) as q is");
  require(is(v, job.keys, job.outputs), "v must be (batches, heads, keys, outputs) as k is");
  require(is(out, job.queries, job.outputs) && out.writeable(),
          "out must be a writable (batches, heads, queries, outputs) array");
  const int64_t slices = batches * job.heads;
  if (slices == 0 || job.queries == 0) return;
  const int64_t tile = attention_tile(isa_lanes(isa));
  const int64_t tiles = (job.queries + tile - 1) / tile;
  job.parts = std::clamp<int64_t>(threads * kTasksPerThread / slices, 1, tiles);
  py::gil_scoped_release unlocked;
  parallel_for(slices * job.parts, threads, attention_scratch(job),
               [&](int64_t task, float* scratch) { compute(isa, job, task, scratch); });
}

}  // namespace

void bind_attention(py::module_& module) {
  module.def("attention", &run, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("scale"),
             py::arg("out").noconvert(), py::arg("threads"), py::arg("causal") = false,
             "softmax(q k^T * scale) v into out; see ops.attention.");
}

}  // namespace lc
