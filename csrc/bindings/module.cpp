// lc_engine._native: the operators on a CPU. Private; lc_engine.ops is the way in.
#include "bindings/arrays.h"
#include "simd/isa.h"

namespace {

std::string set_isa(const std::string& name) {
  const lc::Isa isa = lc::isa_named(name), before = lc::active_isa();
  lc::set_active_isa(isa);
  return lc::isa_name(before);
}

void bind_isa(pybind11::module_& module) {
  module.def(
      "isas",
      [] {
        std::vector<std::string> names;
        for (lc::Isa isa : lc::available_isas()) names.push_back(lc::isa_name(isa));
        return names;
      },
      "The instruction sets of this build that the processor has, from the least to the best.");
  module.def(
      "cpu_isa", [] { return lc::isa_name(lc::active_isa()); },
      "The instruction set of new plans and calls; LC_ENGINE_ISA chooses one.");
  module.def("set_isa", &set_isa, pybind11::arg("name"),
             "Changes the instruction set of new plans and calls; returns the one before.");
}

}  // namespace

PYBIND11_MODULE(_native, module, pybind11::mod_gil_not_used()) {
  module.doc() = "The C++ core of lc_engine; use lc_engine.ops.";
  bind_isa(module);
  lc::bind_attention(module);
  lc::bind_depthwise(module);
  lc::bind_gated_silu(module);
  lc::bind_int8_convolution(module);
  lc::bind_int8_linear(module);
  lc::bind_linear(module);
  lc::bind_logits(module);
  lc::bind_masked_linear(module);
  lc::bind_max_pool(module);
  lc::bind_mlp(module);
  lc::bind_prototype(module);
  lc::bind_rms_norm(module);
  lc::bind_sparse_layer(module);
  lc::bind_thresholds(module);
  lc::bind_token_nll(module);
  lc::bind_transformer_block(module);
  lc::bind_winograd(module);
}
