"""rms_norm against float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from lc_engine.ops import rms_norm

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [torch.float32, torch.bfloat16]


def exact(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 40, 64), (4, 33), (0, 8), (17, 576)], ids=str)
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e4])
def test_shapes(draw: Draw, dtype: torch.dtype, shape: tuple[int, ...], size: float) -> None:
    x, weight = (draw(*shape) * size).to(dtype), draw(shape[-1]).to(dtype)
    found = rms_norm(x, weight, 1e-5)
    assert found.dtype == dtype
    # One rounding of the result; in float32 also of the sum.
    rough = 2**-8 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found.double(), exact(x, weight, 1e-5), rtol=rough, atol=1e-12)


def test_views_are_rows(draw: Draw) -> None:
    x, weight = draw(3, 16, 5).transpose(1, 2), draw(16)
    torch.testing.assert_close(rms_norm(x, weight, 0.1).double(), exact(x, weight, 0.1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_nan_stays_in_its_row(draw: Draw, dtype: torch.dtype) -> None:
    x = draw(40, 20).to(dtype)
    x[7, 19] = math.nan
    found = rms_norm(x, torch.ones(20, dtype=dtype), 1e-6).isnan()
    assert bool(found[7].all())
    assert int(found.sum()) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.ones(3)}, r"weight must have shape \(4\), got \(3,\)"),
        ({"x": torch.ones(2, 4).double()}, "takes float32 or bfloat16 on a CPU"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rms_norm(**{"x": torch.ones(2, 4), "weight": torch.ones(4), "eps": 1e-6} | change)
