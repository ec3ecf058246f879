// Which instruction set the kernels use: the best one the processor has, or LC_ENGINE_ISA.
#pragma once
#include <string>

namespace lc {

enum class Isa { baseline, avx2, avx512, avx512_bf16 };

// The active instruction set, chosen once. Throws std::runtime_error when LC_ENGINE_ISA names one
// that is unknown, was not built or that this processor lacks.
Isa active_isa();
std::string isa_name(Isa isa);

// Floats in one vector register of the active instruction set: samples scored side by side.
int isa_lanes(Isa isa);

// Whether the processor multiplies four pairs of 8-bit numbers at a time, in the active set.
bool isa_multiplies_int8();

}  // namespace lc

// Runs NAME of the namespace that was compiled for the active instruction set.
#if defined(LC_HAVE_AVX512_BF16)
#define LC_DISPATCH(NAME, ...)                                                \
  switch (::lc::active_isa()) {                                               \
    case ::lc::Isa::avx512_bf16: return ::lc::avx512_bf16::NAME(__VA_ARGS__); \
    case ::lc::Isa::avx512: return ::lc::avx512::NAME(__VA_ARGS__);           \
    case ::lc::Isa::avx2: return ::lc::avx2::NAME(__VA_ARGS__);               \
    default: return ::lc::baseline::NAME(__VA_ARGS__);                        \
  }
#elif defined(LC_HAVE_AVX512)
#define LC_DISPATCH(NAME, ...)                                      \
  switch (::lc::active_isa()) {                                     \
    case ::lc::Isa::avx512: return ::lc::avx512::NAME(__VA_ARGS__); \
    case ::lc::Isa::avx2: return ::lc::avx2::NAME(__VA_ARGS__);     \
    default: return ::lc::baseline::NAME(__VA_ARGS__);              \
  }
#else
#define LC_DISPATCH(NAME, ...) return ::lc::baseline::NAME(__VA_ARGS__);
#endif
// A kernel's name in every instruction set that may have been built.
#define LC_DECLARE(SIGNATURE) \
  namespace baseline {        \
  SIGNATURE;                  \
  }                           \
  namespace avx2 {            \
  SIGNATURE;                  \
  }                           \
  namespace avx512 {          \
  SIGNATURE;                  \
  }                           \
  namespace avx512_bf16 {     \
  SIGNATURE;                  \
  }
