"""What a weight is compared with: the three forms that an operator's `saliency` may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from lc_engine.ops import contract, philox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    Saliency = Tensor | tuple[Literal["random"], int] | None
    SaliencyList = Sequence[Tensor] | tuple[Literal["random"], int] | None

SEED_BITS = (1 << 64) - 1  # of a seed that C++ takes; Philox's key has no more


def seed_of(saliency: object) -> int | None:
    """Return the seed of ("random", seed), None for any other saliency."""
    if isinstance(saliency, tuple) and len(saliency) == 2 and isinstance(saliency[0], str):
        kind, seed = saliency
        return int(seed) if kind == "random" else None
    return None


def split(saliency: Saliency) -> tuple[Tensor | None, int | None]:
    """Split a `saliency` into the tensor and the seed that a custom op can take.

    Raises:
        ValueError: neither None, a tensor nor ("random", seed).
    """
    seed = seed_of(saliency)
    if seed is None and saliency is not None and not isinstance(saliency, torch.Tensor):
        raise ValueError(f'saliency must be None, a tensor or ("random", seed), got {saliency!r}')
    return (saliency if isinstance(saliency, torch.Tensor) else None), seed


def split_list(saliency: SaliencyList) -> tuple[list[Tensor] | None, int | None]:
    """Split the saliency of several weights into their tensors and the seed.

    Raises:
        ValueError: neither None, a list of tensors nor ("random", seed).
    """
    seed = seed_of(saliency)
    if saliency is None or seed is not None:
        return None, seed
    tensors = [one for one in saliency if isinstance(one, torch.Tensor)]
    if len(tensors) != len(saliency):
        raise ValueError(
            f'saliency must be None, one tensor per weight or ("random", seed), got {saliency!r}'
        )
    return tensors, None


def drawn(weight: Tensor, saliency: Tensor | None, seed: int | None) -> Tensor | None:
    """Return the saliency of a weight, drawn where there is a seed; None for |w|."""
    dtype = contract.compute_dtype(weight.dtype)
    if seed is not None:
        return philox.uniform(tuple(weight.shape), seed, device=weight.device).to(dtype)
    return None if saliency is None else saliency.to(dtype)


def keep(weight: Tensor, saliency: Tensor | None, threshold: Tensor) -> Tensor:
    """Return weight ⊙ [s ≥ t]; `saliency` None is |w|, and NaN is below every threshold."""
    score = weight.abs() if saliency is None else saliency
    return torch.where(score >= threshold, weight, 0)


def shared(inputs: Tensor) -> Tensor:
    """Return (K, M, D) inputs contiguously, or the (M, D) that all sub-models share."""
    same = inputs.stride(0) == 0 and len(inputs) > 0
    return inputs[0].contiguous() if same else inputs.contiguous()
