"""What the tests of layers share: their comparison, and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

# (images, channels, height, width), outputs, padding
WINOGRAD_CASES = [
    ((1, 1, 1, 1), 1, (1, 1)),
    ((1, 1, 3, 3), 1, (0, 0)),
    ((2, 64, 14, 14), 64, (1, 1)),
    ((3, 5, 7, 9), 33, (1, 2)),
    ((2, 40, 8, 5), 70, (0, 1)),
    ((1, 97, 4, 3), 15, (3, 0)),
    ((5, 130, 7, 7), 200, (1, 1)),
]


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    rough = 1e-2 if dtype == torch.bfloat16 else 2e-6
    scale = wanted.abs().max().item() if wanted.numel() else 0.0
    torch.testing.assert_close(found.double(), wanted, rtol=rough, atol=rough * scale)
