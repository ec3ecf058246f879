"""gated_silu against float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from lc_engine.ops import gated_silu

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1,), (0, 3), (2, 7, 33), (3, 16), (40, 1536)], ids=str)
@pytest.mark.parametrize("size", [1.0, 30.0, 1e-3])
def test_shapes(draw: Draw, dtype: torch.dtype, shape: tuple[int, ...], size: float) -> None:
    gate, up = (draw(*shape) * size).to(dtype), draw(*shape).to(dtype)
    found = gated_silu(gate, up)
    assert found.dtype == dtype
    wide = gate.double()
    want = wide * torch.sigmoid(wide) * up.double()
    # One rounding of the result; e^−gate has an error of |gate| 2^-24.
    rough = 2**-8 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.double(), want, rtol=rough, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extreme_gates(dtype: torch.dtype) -> None:
    gate = torch.tensor([1e4, -1e4, 3e38, -3e38, 0.0, -150.0, math.inf, math.nan]).to(dtype)
    found = gated_silu(gate, torch.ones_like(gate))
    assert torch.equal(found[[0, 2, 6]], gate[[0, 2, 6]])
    assert found[[1, 3, 4, 5]].float().abs().max() < 1e-35
    assert math.isnan(found[7])


def test_views_are_copied(draw: Draw) -> None:
    gate, up = draw(8, 6, 20).chunk(2, dim=-1)
    want = torch.nn.functional.silu(gate) * up
    torch.testing.assert_close(gated_silu(gate, up), want)


@pytest.mark.parametrize(
    ("up", "message"),
    [
        (torch.ones(2, 3), r"up must have shape \(2, 4\), got \(2, 3\)"),
        (torch.ones(2, 4).bfloat16(), "up is torch.bfloat16 but gate is torch.float32"),
    ],
)
def test_what_does_not_fit_is_refused(up: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gated_silu(torch.ones(2, 4), up)
