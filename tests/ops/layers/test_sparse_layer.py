"""Layers as lists of their kept weights, against dense float64 products."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from helpers.layers import close
from lc_engine.ops import SparseLayerPlan
from lc_engine.ops.layers.sparse_layer import count_kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [torch.float32, torch.bfloat16]
# (images, channels, height, width), outputs, kernel, stride, padding, dilation
CONVOLUTIONS = [
    ((1, 1, 1, 1), 1, (1, 1), (1, 1), (0, 0), (1, 1)),
    ((2, 5, 7, 9), 3, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((3, 16, 8, 8), 33, (3, 3), (2, 2), (1, 1), (1, 1)),
    ((1, 70, 5, 6), 17, (1, 1), (2, 2), (0, 0), (1, 1)),
    ((2, 40, 9, 9), 20, (3, 5), (2, 1), (1, 2), (1, 2)),
    ((1, 33, 4, 4), 64, (4, 4), (1, 1), (3, 0), (1, 1)),
]


def thinned(weight: Tensor, density: float) -> Tensor:
    """Zeros with both signs where a mask drops."""
    return weight * (torch.rand_like(weight) < density)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.03, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (31, 7, 5), (33, 450, 40), (130, 1000, 9)], ids=str)
def test_linear(
    draw: Draw, dtype: torch.dtype, density: float, shape: tuple[int, int, int]
) -> None:
    rows, inputs, outputs = shape
    x, bias = draw(rows, inputs).to(dtype), draw(outputs).to(dtype)
    weight = thinned(draw(outputs, inputs), density).to(dtype)
    for shift in (bias, None):
        wanted = functional.linear(
            x.double(), weight.double(), None if shift is None else shift.double()
        )
        close(SparseLayerPlan(weight, shift)(x), wanted, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["relu", "relu6", "gelu"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (31, 7, 5), (33, 450, 40), (130, 1000, 9)], ids=str)
def test_activation(
    draw: Draw, dtype: torch.dtype, activation: str, shape: tuple[int, int, int]
) -> None:
    rows, inputs, outputs = shape
    x, bias = draw(rows, inputs).to(dtype), 3 * draw(outputs).to(dtype)
    weight = thinned(draw(outputs, inputs), 0.1).to(dtype)
    weight[0, 0] = math.nan
    linear = functional.linear(x.double(), weight.double(), bias.double())
    found = SparseLayerPlan(weight, bias, activation=activation)(x).double()
    assert bool(found[:, 0].isnan().all())
    # Errors are those of the sums, which an activation may make small.
    atol = (1e-2 if dtype == torch.bfloat16 else 2e-6) * linear.nan_to_num().abs().max().item()
    wanted = getattr(functional, activation)(linear)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=atol, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(
    draw: Draw, dtype: torch.dtype, layout: torch.memory_format, case: tuple
) -> None:
    shape, outputs, kernel, stride, padding, dilation = case
    x = draw(*shape).to(dtype).contiguous(memory_format=layout)
    weight = thinned(draw(outputs, shape[1], *kernel), 0.4).to(dtype)
    bias = draw(outputs).to(dtype)
    plan = SparseLayerPlan(weight, bias, stride=stride, padding=padding, dilation=dilation)
    wanted = functional.conv2d(
        x.double(), weight.double(), bias.double(), stride, padding, dilation
    )
    found = plan(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    close(found, wanted, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_has_the_same_bits_in_every_batch_and_at_every_thread_count(
    draw: Draw, dtype: torch.dtype, set_threads: Callable[[int], None]
) -> None:
    weight, x = thinned(draw(50, 300), 0.3).to(dtype), draw(4, 25, 300).to(dtype)
    set_threads(2)
    whole = SparseLayerPlan(weight)(x)
    set_threads(1)
    plan = SparseLayerPlan(weight)
    assert torch.equal(plan(x[2:3, 7:]), whole[2:3, 7:])
    assert torch.equal(plan(x[:, :1]), whole[:, :1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_without_a_row_or_an_output(draw: Draw, dtype: torch.dtype) -> None:
    weight = draw(3, 4).to(dtype)
    assert SparseLayerPlan(weight)(torch.empty(2, 0, 4, dtype=dtype)).shape == (2, 0, 3)
    assert SparseLayerPlan(weight[:0])(torch.empty(5, 4, dtype=dtype)).shape == (5, 0)
    kernel = draw(3, 4, 2, 2).to(dtype)
    assert SparseLayerPlan(kernel)(torch.empty(0, 4, 5, 5, dtype=dtype)).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_kept_weights_are_counted(
    draw: Draw, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    weight = thinned(draw(70, 33, 7, 5), 0.3).to(dtype).contiguous(memory_format=layout)
    weight[0, 0, 0, :2] = torch.tensor([math.nan, -0.0])
    assert count_kept(weight) == int(torch.count_nonzero(weight))
    assert count_kept(weight[0, 0]) == int(torch.count_nonzero(weight[0, 0]))
    assert count_kept(weight[:0]) == 0


def test_what_is_not_finite_stays_so(draw: Draw) -> None:
    weight, x = thinned(draw(9, 40), 0.5), draw(70, 40)
    weight[4, 3] = math.nan
    x[11] = math.inf
    found = SparseLayerPlan(weight)(x)
    assert bool(found[:, 4].isnan().all())
    assert not bool(found[11].isfinite().any())
    others = [i for i in range(70) if i != 11]
    outputs = [i for i in range(9) if i != 4]
    assert bool(found[others][:, outputs].isfinite().all())


@pytest.mark.parametrize(
    ("weight", "keywords", "message"),
    [
        (torch.ones(3), {}, r"weight must have shape \(E, D\)"),
        (torch.ones(3, 4, dtype=torch.float64), {}, "float32 or bfloat16"),
        (torch.ones(3, 4), {"bias": torch.ones(4)}, r"bias must have shape \(3\)"),
        (torch.ones(3, 4, 2, 2), {"stride": (0, 1)}, "stride and dilation must be positive"),
        (torch.ones(3, 0), {}, "with a tap and a channel"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(weight: Tensor, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseLayerPlan(weight, **keywords)


@pytest.mark.parametrize(
    ("weight", "x", "message"),
    [
        (torch.ones(3, 4), torch.ones(2, 5), r"x must have shape \(…, 4\)"),
        (torch.ones(3, 4), torch.ones(2, 4).bfloat16(), "x must be torch.float32 on a CPU"),
        (torch.ones(3, 4, 2, 2), torch.ones(2, 4), r"x must have shape \(N, 4, H, W\)"),
        (torch.ones(3, 4, 5, 5), torch.ones(2, 4, 4, 9), "fewer than the kernel spans"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(weight: Tensor, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseLayerPlan(weight)(x)
