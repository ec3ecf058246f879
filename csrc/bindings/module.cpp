// lc_engine._native: the operators on a CPU. Private; lc_engine.ops is the way in.
#include "bindings/arrays.h"
#include "simd/isa.h"

PYBIND11_MODULE(_native, module, pybind11::mod_gil_not_used()) {
  module.doc() = "The C++ core of lc_engine; use lc_engine.ops.";
  module.def(
      "cpu_isa", [] { return lc::isa_name(lc::active_isa()); },
      "The instruction set in use: baseline, avx2 or avx512; LC_ENGINE_ISA forces one.");
  lc::bind_attention(module);
  lc::bind_depthwise(module);
  lc::bind_int8_convolution(module);
  lc::bind_int8_linear(module);
  lc::bind_linear(module);
  lc::bind_masked_linear(module);
  lc::bind_max_pool(module);
  lc::bind_mlp(module);
  lc::bind_prototype(module);
  lc::bind_sparse_layer(module);
  lc::bind_thresholds(module);
  lc::bind_token_nll(module);
  lc::bind_transformer_block(module);
  lc::bind_winograd(module);
}
