#include "simd/isa.h"

#include <cstdlib>
#include <stdexcept>

namespace lc {
namespace {

// From the least to the best.
constexpr Isa kAll[] = {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16};

bool supported(Isa isa) {
#if defined(LC_HAVE_AVX512) && (defined(__GNUC__) || defined(__clang__))
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512cd");
#if defined(LC_HAVE_AVX512_BF16)
  if (isa == Isa::avx512_bf16) return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  if (isa == Isa::avx512) return avx512;
  if (isa == Isa::avx2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
#endif
  return isa == Isa::baseline;
}

Isa choose() {
  const char* forced = std::getenv("LC_ENGINE_ISA");
  if (forced == nullptr || *forced == '\0') {
    Isa best = Isa::baseline;
    for (Isa isa : kAll)
      if (supported(isa)) best = isa;
    return best;
  }
  for (Isa isa : kAll) {
    if (isa_name(isa) != forced) continue;
    if (!supported(isa))
      throw std::runtime_error("LC_ENGINE_ISA=" + std::string(forced) +
                               ": this build or this processor does not have it");
    return isa;
  }
  throw std::runtime_error("LC_ENGINE_ISA=" + std::string(forced) +
                           ": must be baseline, avx2, avx512 or avx512_bf16");
}

}  // namespace

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

std::string isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512_bf16: return "avx512_bf16";
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "baseline";
  }
}

int isa_lanes(Isa isa) {
  switch (isa) {
    case Isa::avx512_bf16:
    case Isa::avx512: return 16;
    case Isa::avx2: return 8;
    default: return 4;
  }
}

bool isa_multiplies_int8() {
#if defined(LC_HAVE_AVX512) && (defined(__GNUC__) || defined(__clang__))
  return isa_lanes(active_isa()) == 16 && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

}  // namespace lc
