#include "simd/isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace lc {
namespace {

constexpr int kUnset = -1;
std::atomic<int> active{kUnset};  // what set_active_isa set last

bool available(Isa isa) {
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
  const char* name = std::getenv("LC_ENGINE_ISA");
  if (name == nullptr || *name == '\0') return available_isas().back();
  try {
    return isa_named(name);
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error("LC_ENGINE_ISA: " + std::string(error.what()));
  }
}

}  // namespace

std::vector<Isa> available_isas() {
  std::vector<Isa> found;
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16})
    if (available(isa)) found.push_back(isa);
  return found;
}

Isa active_isa() {
  const int set = active.load(std::memory_order_relaxed);
  if (set != kUnset) return static_cast<Isa>(set);
  static const Isa chosen = choose();
  return chosen;
}

void set_active_isa(Isa isa) { active.store(static_cast<int>(isa), std::memory_order_relaxed); }

std::string isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512_bf16: return "avx512_bf16";
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "baseline";
  }
}

Isa isa_named(const std::string& name) {
  std::string names;
  for (Isa isa : available_isas()) {
    if (isa_name(isa) == name) return isa;
    names += (names.empty() ? "" : ", ") + isa_name(isa);
  }
  throw std::invalid_argument("the instruction sets of this build on this processor are " + names +
                              "; got " + name);
}

int isa_lanes(Isa isa) {
  switch (isa) {
    case Isa::avx512_bf16:
    case Isa::avx512: return 16;
    case Isa::avx2: return 8;
    default: return 4;
  }
}

bool isa_multiplies_bfloat16(Isa isa) { return isa == Isa::avx512_bf16; }

bool isa_multiplies_int8(Isa isa) {
#if defined(LC_HAVE_AVX512) && (defined(__GNUC__) || defined(__clang__))
  return isa_lanes(isa) == 16 && __builtin_cpu_supports("avx512vnni");
#else
  (void)isa;
  return false;
#endif
}

}  // namespace lc
