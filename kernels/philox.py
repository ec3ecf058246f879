"""Philox random numbers drawn in a kernel, with the bits of `lc_engine.ops.philox`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def uniform(index, stream, seed):
    """Return uniform float32 numbers in [0, 1) for a block of int64 `index`.

    `stream` is an int of at most 32 bits, `seed` the 64-bit key.
    """
    low = (index & 0xFFFFFFFF).to(tl.uint32)
    high = (index >> 32).to(tl.uint32)
    zero = low * 0
    word, _, _, _ = tl.philox(seed, low, high, zero + stream, zero)
    # 24 bits are exact in float32, and so is the product.
    return (word >> 8).to(tl.float32) * (1.0 / 16777216.0)
