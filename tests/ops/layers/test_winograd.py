"""3 × 3 convolutions by Winograd's method, against direct float64 ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional
from torch.nn.functional import conv2d

from helpers.layers import WINOGRAD_CASES, close
from lc_engine.ops import WinogradPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=str)
def test_convolution(
    draw: Draw, dtype: torch.dtype, layout: torch.memory_format, case: tuple
) -> None:
    shape, outputs, padding = case
    x = draw(*shape).to(dtype).contiguous(memory_format=layout)
    weight = draw(outputs, shape[1], 3, 3).to(dtype).contiguous(memory_format=layout)
    bias = draw(outputs).to(dtype)
    for shift in (bias, None):
        found = WinogradPlan(weight, shift, padding=padding)(x)
        assert found.is_contiguous(memory_format=torch.channels_last)
        wide = None if shift is None else shift.double()
        close(found, conv2d(x.double(), weight.double(), wide, padding=padding), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=str)
@pytest.mark.parametrize("activation", ["relu", "relu6", "gelu"])
def test_activation(draw: Draw, dtype: torch.dtype, case: tuple, activation: str) -> None:
    shape, outputs, padding = case
    x, weight = draw(*shape).to(dtype), draw(outputs, shape[1], 3, 3).to(dtype)
    bias = 3 * draw(outputs).to(dtype)
    found = WinogradPlan(weight, bias, padding=padding, activation=activation)(x)
    linear = conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    # Errors are those of the sums, which an activation may make small.
    atol = (1e-2 if dtype == torch.bfloat16 else 2e-6) * linear.abs().max().item()
    wanted = getattr(functional, activation)(linear)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-2, atol=atol)


@pytest.mark.parametrize("activation", ["relu", "relu6", "gelu"])
def test_an_activation_keeps_what_is_not_a_number(draw: Draw, activation: str) -> None:
    weight = draw(20, 5, 3, 3)
    weight[4] = math.nan
    found = WinogradPlan(weight, activation=activation)(draw(2, 5, 6, 6))
    assert bool(found[:, 4].isnan().all())
    assert not bool(found[:, :4].isnan().any())


def test_in_float32_it_is_as_exact_as_a_direct_product(draw: Draw) -> None:
    x, weight = draw(4, 128, 14, 14), draw(64, 128, 3, 3)
    wanted = conv2d(x.double(), weight.double(), padding=1)
    found = WinogradPlan(weight, padding=(1, 1))(x)
    direct = (conv2d(x, weight, padding=1) - wanted).square().mean().sqrt()
    assert (found - wanted).square().mean().sqrt() < 3 * direct + 1e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_image_has_the_same_bits_in_every_batch_and_at_every_thread_count(
    draw: Draw, dtype: torch.dtype, set_threads: Callable[[int], None]
) -> None:
    weight, x = draw(50, 36, 3, 3).to(dtype), draw(9, 36, 9, 7).to(dtype)
    set_threads(2)
    whole = WinogradPlan(weight, padding=(1, 1))(x)
    set_threads(1)
    plan = WinogradPlan(weight, padding=(1, 1))
    assert torch.equal(plan(x[4:5]), whole[4:5])
    assert torch.equal(plan(x[:7]), whole[:7])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_without_an_image_or_an_output(draw: Draw, dtype: torch.dtype) -> None:
    weight = draw(3, 4, 3, 3).to(dtype)
    assert WinogradPlan(weight)(torch.empty(0, 4, 5, 6, dtype=dtype)).shape == (0, 3, 3, 4)
    assert WinogradPlan(weight[:0])(torch.empty(2, 4, 5, 5, dtype=dtype)).shape == (2, 0, 3, 3)


def test_what_is_not_finite_stays_in_its_image_and_output(draw: Draw) -> None:
    weight, x = draw(9, 20, 3, 3), draw(3, 20, 6, 6)
    weight[4, 3, 1, 1] = math.nan
    x[1] = math.inf
    found = WinogradPlan(weight, padding=(1, 1))(x)
    assert bool(found[:, 4].isnan().all())
    assert not bool(found[1].isfinite().any())
    others = [i for i in range(9) if i != 4]
    assert bool(found[[0, 2]][:, others].isfinite().all())


@pytest.mark.parametrize(
    ("weight", "keywords", "message"),
    [
        (torch.ones(3, 4, 5, 5), {}, r"weight must have shape \(E, C, 3, 3\)"),
        (torch.ones(3, 4, 3, 3, dtype=torch.float64), {}, "float32 or bfloat16"),
        (torch.ones(3, 4, 3, 3), {"bias": torch.ones(4)}, r"bias must have shape \(3\)"),
        (torch.ones(3, 4, 3, 3), {"padding": (-1, 0)}, "padding not negative"),
        (torch.ones(3, 0, 3, 3), {}, "with a channel"),
        (torch.ones(3, 4, 3, 3), {"activation": "tanh"}, "activation must be None or one of"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(weight: Tensor, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WinogradPlan(weight, **keywords)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 4, 5, 5).bfloat16(), "x must be torch.float32 on a CPU"),
        (torch.ones(2, 5, 5, 5), r"x must have shape \(N, 4, H, W\)"),
        (torch.ones(4, 5, 5), r"x must have shape \(N, 4, H, W\)"),
        (torch.ones(2, 4, 2, 5), "fewer than the kernel spans"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WinogradPlan(torch.ones(3, 4, 3, 3))(x)
