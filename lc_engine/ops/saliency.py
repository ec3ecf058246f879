"""What a weight is compared with: the three forms that an operator's `saliency` may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import contract, philox

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.ops.contract import Saliency

SEED_BITS = (1 << 64) - 1  # of a seed that C++ takes; Philox's key has no more


def split(saliency: Saliency) -> tuple[Tensor | None, int | None]:
    """Split a `saliency` into the tensor and the seed that a custom op can take.

    Raises:
        ValueError: neither None, a tensor nor ("random", seed).
    """
    if saliency is None or isinstance(saliency, torch.Tensor):
        return saliency, None
    if isinstance(saliency, tuple) and len(saliency) == 2 and saliency[0] == "random":
        return None, int(saliency[1])
    raise ValueError(f'saliency must be None, a tensor or ("random", seed), got {saliency!r}')


def drawn(weight: Tensor, saliency: Tensor | None, seed: int | None) -> Tensor | None:
    """Give the saliency tensor of a weight, drawing it where there is a seed; None for |w|."""
    dtype = contract.compute_dtype(weight.dtype)
    if seed is not None:
        return philox.uniform(tuple(weight.shape), seed, device=weight.device).to(dtype)
    return None if saliency is None else saliency.to(dtype)


def keep(weight: Tensor, saliency: Tensor | None, threshold: Tensor) -> Tensor:
    """Give weight ⊙ [s ≥ t]; `saliency` None stands for |w|, and NaN is below every threshold."""
    score = weight.abs() if saliency is None else saliency
    return torch.where(score >= threshold, weight, 0)


def shared(inputs: Tensor) -> Tensor:
    """Give (K, M, D) inputs contiguously, or the one (M, D) that K views have in common."""
    same = inputs.stride(0) == 0 and len(inputs) > 0
    return inputs[0].contiguous() if same else inputs.contiguous()
