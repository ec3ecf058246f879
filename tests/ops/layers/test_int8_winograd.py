"""3 × 3 convolutions by Winograd's method in int8: against the formula and exact ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.functional import conv2d, pad

from helpers.int8 import ACTIVATIONS, quantized
from helpers.layers import WINOGRAD_CASES
from lc_engine.ops import WinogradPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [torch.float32, torch.bfloat16]
# Lavin and Gray, section 4.1.
B = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]]).double()


def by_the_formula(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple) -> Tensor:
    height, width = (size + 2 * p - 2 for size, p in zip(x.shape[2:], padding, strict=True))
    # Whole tiles: one more row or column of zeros where an output is left over.
    around = pad(
        x.float(), (padding[1], padding[1] + width % 2, padding[0], padding[0] + height % 2)
    )
    tiles = around.unfold(2, 4, 2).unfold(3, 4, 2)  # (N, C, down, across, 4, 4)
    inputs = (B @ tiles @ B.T).permute(0, 2, 3, 4, 5, 1)
    kernels = (G @ weight.float() @ G.T).permute(2, 3, 0, 1)  # (4, 4, E, C)
    (quantized_x, a), (quantized_w, b) = quantized(inputs), quantized(kernels)
    results = torch.einsum("ndauvc,uvec->ndauve", quantized_x, quantized_w) * a * b.squeeze(-1)
    outputs = torch.einsum("yu,ndauve,xv->nedyax", A, results, A)
    sums = outputs.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
    return sums if bias is None else sums + bias.double().view(-1, 1, 1)


def close(found: Tensor, sums: Tensor, name: str | None, largest: float) -> None:
    """Apart by the dtype's rounding, or by an input that was quantized to the next step."""
    rough = 6e-3 if found.dtype == torch.bfloat16 else 1e-3
    atol = rough * largest + (2e-4 if name == "gelu" else 0.0)
    torch.testing.assert_close(found.double(), ACTIVATIONS[name](sums), rtol=rough, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=str)
def test_convolution(draw: Draw, dtype: torch.dtype, name: str | None, case: tuple) -> None:
    shape, outputs, padding = case
    x, weight = draw(*shape).to(dtype), draw(outputs, shape[1], 3, 3).to(dtype)
    weight[torch.rand_like(weight, dtype=torch.float32) < 0.3] = 0.0  # as a mask does
    bias = draw(outputs).to(dtype)
    for shift in (bias, None):
        found = WinogradPlan(weight, shift, padding=padding, activation=name, int8=True)(x)
        assert found.dtype == dtype
        # The terms at the positions are as large, also where they cancel.
        largest = float(x.abs().max() * weight.abs().sum((1, 2, 3)).max())
        close(found, by_the_formula(x, weight, shift, padding), name, largest)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_close_to_the_exact_one(draw: Draw, dtype: torch.dtype) -> None:
    x, weight = draw(2, 64, 14, 14).relu().to(dtype), draw(64, 64, 3, 3).to(dtype)
    found = WinogradPlan(weight, padding=(1, 1), int8=True)(x).double()
    wanted = conv2d(x.double(), weight.double(), padding=1)
    assert float((found - wanted).norm() / wanted.norm()) < 0.03


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_image_has_the_same_bits_in_every_batch_and_at_every_thread_count(
    draw: Draw, dtype: torch.dtype, set_threads: Callable[[int], None]
) -> None:
    weight, x = draw(50, 36, 3, 3).to(dtype), draw(9, 36, 9, 7).to(dtype)
    set_threads(2)
    whole = WinogradPlan(weight, padding=(1, 1), int8=True)(x)
    set_threads(1)
    plan = WinogradPlan(weight, padding=(1, 1), int8=True)
    assert torch.equal(plan(x[4:5]), whole[4:5])
    assert torch.equal(plan(x[:7]), whole[:7])


def test_without_an_image_or_an_output(draw: Draw) -> None:
    weight = draw(3, 4, 3, 3)
    assert WinogradPlan(weight, int8=True)(torch.empty(0, 4, 5, 6)).shape == (0, 3, 3, 4)
    assert WinogradPlan(weight[:0], int8=True)(torch.empty(2, 4, 5, 5)).shape == (2, 0, 3, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_in_its_image_and_output(draw: Draw, bad: float) -> None:
    weight, x = draw(9, 20, 3, 3), draw(3, 20, 6, 6)
    weight[4, 3, 1, 1] = bad
    x[1] = bad
    found = WinogradPlan(weight, padding=(1, 1), activation="relu", int8=True)(x)
    assert bool(found[:, 4].isnan().all())
    assert bool(found[1].isnan().all())
    others = [i for i in range(9) if i != 4]
    assert bool(found[[0, 2]][:, others].isfinite().all())


def test_too_many_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 65536 channels"):
        WinogradPlan(torch.ones(1, 65537, 3, 3), int8=True)
