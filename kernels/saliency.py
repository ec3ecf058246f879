"""Saliencies of a block of weights, from any source, and their host-side arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from lc_engine.kernels.philox import uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MAGNITUDE = tl.constexpr(0)  # |w|
GIVEN = tl.constexpr(1)  # a float32 tensor of the weight's shape
RANDOM = tl.constexpr(2)  # Philox numbers by the weight's index
WHOLE = tl.constexpr(3)  # no mask: every weight stays


@triton.jit
def saliency(w, s_ptr, offset, inside, stream, seed, SALIENCY: tl.constexpr):
    """Return the float32 saliencies of weights `w` at int64 `offset`; `s_ptr` only if GIVEN."""
    if SALIENCY == GIVEN:
        score = tl.load(s_ptr + offset, mask=inside)
    elif SALIENCY == RANDOM:
        score = uniform(offset, stream, seed)
    else:
        score = tl.abs(w.to(tl.float32))
    return score


def source_of(saliency: Tensor | Sequence[Tensor] | None, seed: int | None) -> int:
    """Return the source for a saliency tensor or a seed, at most one of which is given."""
    if seed is not None:
        return RANDOM.value
    return MAGNITUDE.value if saliency is None else GIVEN.value


def signed(seed: int) -> int:
    """Return a seed as the signed 64-bit integer that a kernel takes."""
    low = seed & 0xFFFFFFFFFFFFFFFF
    return low - (1 << 64) if low >> 63 else low
