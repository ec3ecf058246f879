#include "isa.h"

#include <cstdlib>
#include <stdexcept>

namespace lc {
namespace {

bool supported(Isa isa) {
#if defined(LC_HAVE_AVX512) && (defined(__GNUC__) || defined(__clang__))
  if (isa == Isa::avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd");
  if (isa == Isa::avx2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
#endif
  return isa == Isa::baseline;
}

Isa choose() {
  const char* forced = std::getenv("LC_ENGINE_ISA");
  if (forced == nullptr || *forced == '\0') {
    if (supported(Isa::avx512)) return Isa::avx512;
    return supported(Isa::avx2) ? Isa::avx2 : Isa::baseline;
  }
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (isa_name(isa) != forced) continue;
    if (!supported(isa))
      throw std::runtime_error("LC_ENGINE_ISA=" + std::string(forced) +
                               ": this build or this processor does not have it");
    return isa;
  }
  throw std::runtime_error("LC_ENGINE_ISA=" + std::string(forced) +
                           ": must be baseline, avx2 or avx512");
}

}  // namespace

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

std::string isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "baseline";
  }
}

int isa_lanes(Isa isa) {
  switch (isa) {
    case Isa::avx512: return 16;
    case Isa::avx2: return 8;
    default: return 4;
  }
}

}  // namespace lc
