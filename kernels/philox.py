"""The Philox numbers of `lc_engine.ops.philox`, drawn inside a kernel: same bits, no tensor."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def uniform(index, stream, seed):
    """Draw number `index` (a block of int64) of `stream` under the 64-bit key `seed`: float32.

    `stream` is an int that fits 32 bits.
    """
    low = (index & 0xFFFFFFFF).to(tl.uint32)
    high = (index >> 32).to(tl.uint32)
    zero = low * 0
    word, _, _, _ = tl.philox(seed, low, high, zero + stream, zero)
    # 24 bits: every one of them is exact in float32, and so is the product.
    return (word >> 8).to(tl.float32) * (1.0 / 16777216.0)
