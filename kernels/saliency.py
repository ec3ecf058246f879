"""What a weight is compared with: the sources of saliency behind one jitted function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from lc_engine.kernels.philox import uniform

if TYPE_CHECKING:
    from torch import Tensor

MAGNITUDE = tl.constexpr(0)  # |w|
GIVEN = tl.constexpr(1)  # a float32 tensor like the weight
RANDOM = tl.constexpr(2)  # Philox, drawn from the weight's index
WHOLE = tl.constexpr(3)  # nothing: every weight stays


@triton.jit
def saliency(w, s_ptr, offset, inside, stream, seed, SALIENCY: tl.constexpr):
    """Give the float32 saliency of a block of weights `w` that lie at int64 `offset`."""
    if SALIENCY == GIVEN:
        score = tl.load(s_ptr + offset, mask=inside)
    elif SALIENCY == RANDOM:
        score = uniform(offset, stream, seed)
    else:
        score = tl.abs(w.to(tl.float32))
    return score


def source_of(saliency: Tensor | None, seed: int | None) -> int:
    """Tell which source a saliency tensor or a seed, at most one of them, stands for."""
    if seed is not None:
        return RANDOM.value
    return MAGNITUDE.value if saliency is None else GIVEN.value


def signed(seed: int) -> int:
    """Return the 64 bits of a seed as the signed number that a kernel takes."""
    low = seed & 0xFFFFFFFFFFFFFFFF
    return low - (1 << 64) if low >> 63 else low
