"""Biases in the form that kernels read: float32, padded to whole tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def padded_bias(bias: Tensor | None, like: Tensor, size: int, block: int, fill: float) -> Tensor:
    """Return `bias` (size,), or zeros, padded with `fill` to a multiple of `block`.

    With −∞ as `fill`, padding classes drop out of the softmax and no tile of logits needs a mask.
    """
    padded = torch.full((-(-size // block) * block,), fill, dtype=torch.float32, device=like.device)
    padded[:size] = 0.0 if bias is None else bias
    return padded
