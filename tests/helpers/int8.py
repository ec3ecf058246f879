"""References of the int8 layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

DTYPES = [torch.float32, torch.bfloat16]


ACTIVATIONS = {
    None: lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "gelu": functional.gelu,
}


def quantized(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return values quantized per row, and the scales, with the roundings of float32."""
    most = values.float().abs().amax(-1, keepdim=True)
    inverse_scale = torch.where(most >= 1e-30, torch.full_like(most, 127) / most, 0)
    return (values.float() * inverse_scale).round().double(), most.double() / 127


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype, more: float = 0.0) -> None:
    assert found.dtype == dtype
    rough = 5e-3 if dtype == torch.bfloat16 else 2e-6
    scale = wanted.abs().max().item() if wanted.numel() else 0.0
    torch.testing.assert_close(found.double(), wanted, rtol=rough, atol=rough * scale + more)
