"""Convolutions in int8: against the formula, and against float64 without rounding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.functional import conv2d, pad

from helpers.int8 import ACTIVATIONS, DTYPES, close, quantized
from lc_engine.ops import Int8ConvolutionPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

# (images, channels, height, width), (outputs, kernel), stride, padding, dilation
CASES = [
    ((1, 1, 1, 1), (1, 1, 1), (1, 1), (0, 0), (1, 1)),
    ((2, 3, 30, 34), (64, 7, 7), (2, 2), (3, 3), (1, 1)),
    ((3, 64, 14, 14), (70, 3, 3), (2, 2), (1, 1), (1, 1)),
    ((1, 21, 29, 28), (33, 1, 1), (2, 3), (0, 0), (1, 1)),
    ((2, 5, 9, 60), (7, 2, 5), (1, 2), (2, 1), (2, 3)),
    ((2, 4, 5, 6), (40, 3, 1), (1, 1), (0, 4), (1, 1)),
    ((3, 130, 7, 7), (5, 3, 3), (1, 1), (1, 1), (1, 1)),
]


def by_the_formula(
    x: Tensor, weight: Tensor, bias: Tensor | None, step: tuple, name: str | None
) -> Tensor:
    """Each band of outputs, with the step of the pixels under it."""
    stride, padding, dilation = step
    quantized_w, b = quantized(weight.flatten(1))
    quantized_w, b = quantized_w.view(weight.shape), b.view(1, -1, 1, 1)
    around = pad(x.float(), (padding[1], padding[1], padding[0], padding[0]))
    shape = conv2d(around, weight.float(), None, stride, 0, dilation).shape
    rows = min(-(-48 // shape[3]), shape[2])
    reach = dilation[0] * (weight.shape[2] - 1) + 1
    bands = []
    for first in range(0, shape[2], rows):
        last = min(first + rows, shape[2]) - 1
        under = around[:, :, first * stride[0] : last * stride[0] + reach]
        quantized_x, a = quantized(under.flatten(1))
        sums = conv2d(quantized_x.view(under.shape), quantized_w, None, stride, 0, dilation)
        bands.append(sums * a.view(-1, 1, 1, 1) * b)
    sums = torch.cat(bands, dim=2)
    return ACTIVATIONS[name](sums if bias is None else sums + bias.double().view(-1, 1, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolution(
    draw: Draw, dtype: torch.dtype, layout: torch.memory_format, case: tuple
) -> None:
    shape, kernel, *step = case
    x = draw(*shape).to(dtype).contiguous(memory_format=layout)
    weight = draw(kernel[0], shape[1], *kernel[1:]).to(dtype).contiguous(memory_format=layout)
    weight[torch.rand_like(weight, dtype=torch.float32) < 0.3] = 0.0  # as a mask does
    bias = draw(kernel[0]).to(dtype)
    named = dict(zip(("stride", "padding", "dilation"), step, strict=True))
    for shift in (bias, None):
        found = Int8ConvolutionPlan(weight, shift, **named)(x)
        assert found.is_contiguous(memory_format=torch.channels_last)
        close(found, by_the_formula(x, weight, shift, step, None), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["relu", "relu6", "gelu"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_activation(draw: Draw, dtype: torch.dtype, name: str, case: tuple) -> None:
    shape, kernel, *step = case
    x, weight = draw(*shape).to(dtype), draw(kernel[0], shape[1], *kernel[1:]).to(dtype)
    named = dict(zip(("stride", "padding", "dilation"), step, strict=True))
    found = Int8ConvolutionPlan(weight, None, activation=name, **named)(x)
    wanted = by_the_formula(x, weight, None, step, name)
    close(found, wanted, dtype, 2e-4 if name == "gelu" else 0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_close_to_the_exact_one(draw: Draw, dtype: torch.dtype) -> None:
    x, weight = draw(3, 48, 20, 20).to(dtype), draw(40, 48, 3, 3).to(dtype)
    found = Int8ConvolutionPlan(weight, stride=(2, 2), padding=(1, 1))(x).double()
    wanted = conv2d(x.double(), weight.double(), None, 2, 1)
    assert float((found - wanted).norm() / wanted.norm()) < 0.02


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_image_has_the_same_bits_in_every_batch_and_at_every_thread_count(
    draw: Draw, dtype: torch.dtype, set_threads: Callable[[int], None]
) -> None:
    weight, x = draw(50, 6, 3, 3).to(dtype), draw(9, 6, 29, 27).to(dtype)
    set_threads(2)
    whole = Int8ConvolutionPlan(weight, padding=(1, 1))(x)
    set_threads(1)
    plan = Int8ConvolutionPlan(weight, padding=(1, 1))
    assert torch.equal(plan(x[4:5]), whole[4:5])
    assert torch.equal(plan(x[:7]), whole[:7])


def test_without_an_image_or_an_output(draw: Draw) -> None:
    weight = draw(3, 4, 3, 3)
    assert Int8ConvolutionPlan(weight)(torch.empty(0, 4, 5, 6)).shape == (0, 3, 3, 4)
    assert Int8ConvolutionPlan(weight[:0])(torch.empty(2, 4, 5, 5)).shape == (2, 0, 3, 3)


def test_zeros_give_the_bias(draw: Draw) -> None:
    weight, bias = draw(5, 3, 3, 3), draw(5)
    found = Int8ConvolutionPlan(weight, bias, padding=(1, 1))(torch.zeros(1, 3, 4, 4))
    assert torch.equal(found, bias.view(1, 5, 1, 1).expand(1, 5, 4, 4))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_in_its_image_and_output(draw: Draw, bad: float) -> None:
    weight, x = draw(40, 5, 3, 3), draw(3, 5, 8, 8)
    weight[4, 3, 1, 1], x[1, 2, 3, 3] = bad, bad
    found = Int8ConvolutionPlan(weight, padding=(1, 1), activation="relu")(x)
    assert bool(found[1, :, 3].isnan().all())
    assert bool(found[:, 4].isnan().all())
    others = [i for i in range(40) if i != 4]
    assert bool(found[[0, 2]][:, others].isfinite().all())


@pytest.mark.parametrize(
    ("weight", "keywords", "message"),
    [
        (torch.ones(3, 4), {}, r"weight must have shape \(E, C, height, width\)"),
        (torch.ones(3, 4, 3, 3, dtype=torch.float64), {}, "float32 or bfloat16"),
        (torch.ones(3, 4, 3, 3), {"bias": torch.ones(4)}, r"bias must have shape \(3\)"),
        (torch.ones(3, 4, 3, 3), {"padding": (-1, 0)}, "padding not negative"),
        (torch.ones(3, 4, 3, 3), {"stride": (0, 1)}, "stride and dilation must be positive"),
        (torch.ones(1, 65537, 1, 1), {}, "with 1 to 65536 taps and channels"),
        (torch.ones(3, 0, 3, 3), {}, "with 1 to 65536 taps and channels"),
        (torch.ones(3, 4, 3, 3), {"activation": "tanh"}, "activation must be None or one of"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(weight: Tensor, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Int8ConvolutionPlan(weight, **keywords)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 4, 5, 5).bfloat16(), "x must be torch.float32 on a CPU"),
        (torch.ones(2, 5, 5, 5), r"x must have shape \(N, 4, H, W\)"),
        (torch.ones(2, 4, 2, 5), "fewer than the kernel spans"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Int8ConvolutionPlan(torch.ones(3, 4, 3, 3))(x)
