// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), word 0:
// the saliency of a randomly masked weight, bit for bit that of lc_engine/ops/philox.py.
#pragma once
#include "simd/simd.h"

namespace lc {
namespace LC_ISA {

constexpr int kDraw = 64;  // compilers vectorize loops of this length and do not unroll them

// Numbers [index, index + kDraw) of a stream: uniform on [0, 1), multiples of 2^-24. Rounds are the
// outer loop, as compilers vectorize only the loop over the numbers.
LC_INLINE void philox_uniform(uint64_t index, uint64_t seed, uint32_t stream, float* numbers) {
  uint32_t c0[kDraw], c1[kDraw], c2[kDraw], c3[kDraw];
  for (int i = 0; i < kDraw; ++i) {
    c0[i] = static_cast<uint32_t>(index + i);
    c1[i] = static_cast<uint32_t>((index + i) >> 32);
    c2[i] = stream;
    c3[i] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kDraw; ++i) {
      const uint64_t product0 = static_cast<uint64_t>(c0[i]) * 0xD2511F53u;
      const uint64_t product1 = static_cast<uint64_t>(c2[i]) * 0xCD9E8D57u;
      c0[i] = static_cast<uint32_t>(product1 >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<uint32_t>(product1);
      c2[i] = static_cast<uint32_t>(product0 >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<uint32_t>(product0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int i = 0; i < kDraw; ++i)
    numbers[i] = static_cast<float>(static_cast<int32_t>(c0[i] >> 8)) * (1.f / 16777216.f);
}

}  // namespace LC_ISA
}  // namespace lc
