// Which instruction set the kernels use: the best one the processor has, or LC_ENGINE_ISA.
//
// A call reads the active set once, and a plan keeps the one that it was made with, as its packed
// data have that set's vector width: a change of the active set reaches neither.
#pragma once
#include <string>
#include <vector>

namespace lc {

enum class Isa { baseline, avx2, avx512, avx512_bf16 };

// The sets that this build and this processor have, from the least to the best.
std::vector<Isa> available_isas();

// The set for new plans and calls: that of set_active_isa, or else chosen once. Throws
// std::runtime_error when LC_ENGINE_ISA names one that is not available.
Isa active_isa();
void set_active_isa(Isa isa);

std::string isa_name(Isa isa);
// Throws std::invalid_argument for a name of none that is available.
Isa isa_named(const std::string& name);

// Floats in one vector register: samples scored side by side.
int isa_lanes(Isa isa);

// Whether bfloat16 numbers are multiplied two at a time, and 8-bit integers four at a time.
bool isa_multiplies_bfloat16(Isa isa);
bool isa_multiplies_int8(Isa isa);

}  // namespace lc

// Runs NAME of the namespace that was compiled for an instruction set.
#if defined(LC_HAVE_AVX512_BF16)
#define LC_DISPATCH(ISA, NAME, ...)                                           \
  switch (ISA) {                                                              \
    case ::lc::Isa::avx512_bf16: return ::lc::avx512_bf16::NAME(__VA_ARGS__); \
    case ::lc::Isa::avx512: return ::lc::avx512::NAME(__VA_ARGS__);           \
    case ::lc::Isa::avx2: return ::lc::avx2::NAME(__VA_ARGS__);               \
    default: return ::lc::baseline::NAME(__VA_ARGS__);                        \
  }
#elif defined(LC_HAVE_AVX512)
#define LC_DISPATCH(ISA, NAME, ...)                                 \
  switch (ISA) {                                                    \
    case ::lc::Isa::avx512: return ::lc::avx512::NAME(__VA_ARGS__); \
    case ::lc::Isa::avx2: return ::lc::avx2::NAME(__VA_ARGS__);     \
    default: return ::lc::baseline::NAME(__VA_ARGS__);              \
  }
#else
#define LC_DISPATCH(ISA, NAME, ...)                    \
  switch (ISA) {                                       \
    default: return ::lc::baseline::NAME(__VA_ARGS__); \
  }
#endif
