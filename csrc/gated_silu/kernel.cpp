// The kernel behind gated_silu.
#include "gated_silu/kernel.h"

#include "simd/activate.h"
#include "simd/rows_in.h"
#include "simd/rows_out.h"

namespace lc {
namespace LC_ISA {

void gated_silu(const GatedSiluJob& job, int64_t from, int64_t to) {
  const char *gates = static_cast<const char*>(job.gate), *ups = static_cast<const char*>(job.up);
  for (int64_t i = from; i < to; i += kLanes) {
    const Vec gate = load_row(gates, job.bf16, i, to), up = load_row(ups, job.bf16, i, to);
    // 2^256 is infinite and 2^-200 zero, as e^−gate is for such gates.
    const Vec t = max(splat(-200.f), min(splat(256.f), mul(gate, splat(-kLog2E))));
    const Vec power = exp2(t);
    const Vec silu = div(gate, add(splat(1.f), power));
    write_row(job.out, job.bf16, i, mul(silu, up), to - i < kLanes ? to - i : kLanes);
  }
}

}  // namespace LC_ISA
}  // namespace lc
