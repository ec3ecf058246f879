"""DepthwisePlan against torch's convolutions in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from timm.layers import conv2d_same
from torch.nn import functional as F  # noqa: N812

from lc_engine.ops import DepthwisePlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [torch.float32, torch.bfloat16]
# (images, channels, height, width), kernel, stride, padding, dilation
CASES = [
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    ((2, 32, 12, 17), (3, 3), (1, 1), (1, 1), (1, 1)),
    ((2, 48, 12, 23), (3, 3), (2, 2), (1, 1), (1, 1)),
    ((3, 67, 9, 14), (5, 5), (1, 1), (2, 2), (1, 1)),
    ((2, 35, 13, 15), (5, 5), (2, 2), (2, 2), (1, 1)),
    ((1, 33, 16, 20), (7, 7), (1, 1), (3, 3), (1, 1)),
    ((1, 16, 3, 2), (7, 7), (1, 1), (3, 3), (1, 1)),  # no kernel lies inside
    ((2, 20, 11, 9), (2, 4), (3, 1), (1, 2), (1, 1)),
    ((2, 17, 15, 14), (3, 3), (1, 2), (2, 4), (2, 3)),
    ((1, 40, 8, 19), (3, 3), (1, 1), (0, 0), (1, 1)),
    ((1, 16, 4, 4), (3, 3), (1, 1), (5, 5), (1, 1)),  # outputs that see zeros alone
]
ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "gelu": F.gelu,
}


def drawn(draw: Draw, shape: tuple, kernel: tuple, dtype: torch.dtype) -> tuple[Tensor, ...]:
    channels = shape[1]
    x = draw(*shape).to(dtype).contiguous(memory_format=torch.channels_last)
    return x, draw(channels, 1, *kernel), draw(channels)


def check(found: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Sums are float32, and rounded once.
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(found.double(), want, rtol=tolerance, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_convolution(draw: Draw, dtype: torch.dtype, case: tuple) -> None:
    shape, kernel, stride, padding, dilation = case
    x, weight, bias = drawn(draw, shape, kernel, dtype)
    plan = DepthwisePlan(weight, bias, stride=stride, padding=padding, dilation=dilation)
    want = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding, dilation, shape[1])
    check(plan(x), want, dtype)
    check(plan(x.contiguous()), want, dtype)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_activates(draw: Draw, dtype: torch.dtype, activation: str | None) -> None:
    x, weight, _ = drawn(draw, (2, 37, 8, 9), (3, 3), dtype)
    found = DepthwisePlan(4 * weight, None, padding=(1, 1), activation=activation)(x)
    want = F.conv2d(x.double(), 4 * weight.double(), padding=1, groups=37)
    check(found, ACTIVATIONS[activation](want), dtype)


@pytest.mark.parametrize("size", [(12, 13), (7, 8), (2, 1)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (4, 2)])
def test_same_is_as_tensorflow_does_it(
    draw: Draw, size: tuple, stride: tuple, kernel: tuple
) -> None:
    x, weight, bias = drawn(draw, (2, 24, *size), kernel, torch.float32)
    found = DepthwisePlan(weight, bias, stride=stride, padding="same")(x)
    want = conv2d_same(x.double(), weight.double(), bias.double(), stride, groups=24)
    check(found, want, torch.float32)


def test_weights_keep_their_digits_under_bfloat16_inputs() -> None:
    x = torch.ones(1, 16, 1, 1, dtype=torch.bfloat16)
    weight = torch.full((16, 1, 1, 1), 1 + 2**-12)
    found = DepthwisePlan(weight, -torch.ones(16))(x)
    assert torch.equal(found, torch.full_like(found, 2**-12))


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_a_nan_stays_one(draw: Draw, activation: str | None) -> None:
    x, weight, bias = drawn(draw, (1, 19, 9, 9), (3, 3), torch.float32)
    x[0, 5, 4, 4] = x[0, 18, 0, 0] = math.nan
    found = DepthwisePlan(weight, bias, padding=(1, 1), activation=activation)(x).isnan()
    want = F.conv2d(x, weight, bias, padding=1, groups=19).isnan()
    assert torch.equal(found, want)


def test_no_images_give_no_outputs(draw: Draw) -> None:
    plan = DepthwisePlan(draw(4, 1, 3, 3))
    assert plan(torch.empty(0, 4, 5, 5)).shape == (0, 4, 3, 3)


@pytest.mark.parametrize(
    ("shape", "x", "message"),
    [
        ((4, 2, 3, 3), (1, 4, 5, 5), "weight must have shape"),
        ((4, 1, 3, 3), (1, 5, 5, 5), "x must have shape"),
        ((4, 1, 3, 3), (1, 4, 2, 5), "fewer than the kernel"),
    ],
)
def test_bad_shapes_are_named(draw: Draw, shape: tuple, x: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DepthwisePlan(draw(*shape))(draw(*x))


def test_bad_dtypes_are_named(draw: Draw) -> None:
    with pytest.raises(ValueError, match="float64"):
        DepthwisePlan(draw(4, 1, 3, 3))(torch.ones(1, 4, 5, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="activation must be"):
        DepthwisePlan(draw(4, 1, 3, 3), activation="tanh")
