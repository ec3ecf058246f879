"""Linear layers in int8: against the formula, and against float64 without rounding."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from helpers.int8 import ACTIVATIONS, DTYPES, close, quantized
from lc_engine.ops import Int8LinearPlan
from lc_engine.ops.layers.int8_linear import InputNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

# Rows, inputs, outputs: around a vector, a block of outputs, a tile and a task of rows.
SHAPES = [(1, 1, 1), (3, 5, 2), (12, 64, 32), (49, 193, 33), (97, 300, 70), (5, 16, 129)]


def by_the_formula(x: Tensor, weight: Tensor, bias: Tensor | None, name: str | None) -> Tensor:
    (quantized_x, a), (quantized_w, b) = quantized(x), quantized(weight)
    sums = quantized_x @ quantized_w.T * a * b.T
    return ACTIVATIONS[name](sums if bias is None else sums + bias.double())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer(draw: Draw, dtype: torch.dtype, activation: str | None, shape: tuple) -> None:
    rows, inputs, outputs = shape
    x, bias = draw(rows, inputs).to(dtype), draw(outputs).to(dtype)
    weight = draw(outputs, inputs).to(dtype)
    weight[torch.rand_like(weight, dtype=torch.float32) < 0.3] = 0.0  # as a mask does
    for shift in (bias, None):
        found = Int8LinearPlan([weight], [shift], [activation])(x)
        wanted = by_the_formula(x, weight, shift, activation)
        close(found, wanted, dtype, 2e-4 if activation == "gelu" else 0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_off_by_no_more_than_half_a_step_of_every_number(
    draw: Draw, dtype: torch.dtype
) -> None:
    x, weight = draw(40, 300).to(dtype), draw(50, 300).to(dtype)
    found = Int8LinearPlan([weight], [None], [None])(x).double()
    wide_x, wide_w = x.double(), weight.double()
    a, b = wide_x.abs().amax(1, keepdim=True) / 254, wide_w.abs().amax(1, keepdim=True) / 254
    most = a * wide_w.abs().sum(1) + wide_x.abs().sum(1, keepdim=True) * b.T + 300 * a * b.T
    wanted = wide_x @ wide_w.T
    assert bool(((found - wanted).abs() <= most + 1e-2 * wanted.abs()).all())
    assert float((found - wanted).norm() / wanted.norm()) < 0.02


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layers_one_after_the_other(draw: Draw, dtype: torch.dtype) -> None:
    sizes = [37, 130, 5, 64]
    weights = [draw(b, a).to(dtype) for a, b in pairwise(sizes)]
    biases = [draw(sizes[1]).to(dtype), None, draw(sizes[3]).to(dtype)]
    names = ["gelu", None, "relu"]
    x = draw(53, sizes[0]).to(dtype)
    together = Int8LinearPlan(weights, biases, names)(x)
    apart = x
    for weight, bias, name in zip(weights, biases, names, strict=True):
        apart = Int8LinearPlan([weight], [bias], [name])(apart)
    assert torch.equal(together, apart)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("inputs", [1, 7, 64, 193])
@pytest.mark.parametrize("affine", [True, False])
def test_a_norm_before_the_layers(
    draw: Draw, dtype: torch.dtype, inputs: int, affine: bool
) -> None:
    x = (3 * draw(53, inputs) + 5).to(dtype)
    weights = [draw(40, inputs).to(dtype), draw(9, 40).to(dtype)]
    scale, shift = (draw(inputs).to(dtype) if affine else None for _ in range(2))
    found = Int8LinearPlan(weights, [None] * 2, ["relu", None], InputNorm(scale, shift, 1e-5))(x)
    wide = (None if part is None else part.double() for part in (scale, shift))
    normed = functional.layer_norm(x.double(), (inputs,), *wide, 1e-5)
    wanted = (normed @ weights[0].double().T).relu() @ weights[1].double().T
    assert found.dtype == dtype
    assert float((found - wanted).norm()) <= 0.03 * float(wanted.norm()) + 1e-6


def test_a_norm_keeps_to_its_row(draw: Draw) -> None:
    x, norm = draw(30, 20), InputNorm(draw(20), draw(20), 1e-6)
    x[1, 3] = math.inf
    plan = Int8LinearPlan([draw(8, 20)], [None], [None], norm)
    found = plan(x)
    assert bool(found[1].isnan().all())
    assert bool(found[[0, *range(2, 30)]].isfinite().all())
    assert torch.equal(plan(x[5:]), found[5:])


def test_any_leading_dimensions(draw: Draw) -> None:
    plan, x = Int8LinearPlan([draw(6, 9)], [None], [None]), draw(2, 3, 4, 9)
    found = plan(x)
    assert found.shape == (2, 3, 4, 6)
    assert torch.equal(found[1, 2, 3], plan(x[1, 2, 3]))
    assert torch.equal(plan(x.transpose(0, 2)), found.transpose(0, 2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_has_the_same_bits_in_every_batch_and_at_every_thread_count(
    draw: Draw, dtype: torch.dtype, set_threads: Callable[[int], None]
) -> None:
    weight, x = draw(70, 61).to(dtype), draw(131, 61).to(dtype)
    set_threads(2)
    whole = Int8LinearPlan([weight], [None], ["gelu"])(x)
    set_threads(1)
    plan = Int8LinearPlan([weight], [None], ["gelu"])
    assert torch.equal(plan(x[100:101]), whole[100:101])
    assert torch.equal(plan(x[7:60]), whole[7:60])


def test_without_a_row_or_an_output(draw: Draw) -> None:
    weight = draw(3, 4)
    assert Int8LinearPlan([weight], [None], [None])(torch.empty(0, 4)).shape == (0, 3)
    assert Int8LinearPlan([weight[:0]], [None], [None])(torch.ones(2, 4)).shape == (2, 0)


def test_zeros_give_the_bias(draw: Draw) -> None:
    weight, bias = draw(5, 8), draw(5)
    weight[2] = 0.0
    found = Int8LinearPlan([weight], [bias], [None])(draw(3, 8))
    assert torch.equal(found[:, 2], bias[2].expand(3))
    assert torch.equal(Int8LinearPlan([weight], [bias], [None])(torch.zeros(1, 8))[0], bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_in_its_row_and_output(
    draw: Draw, bad: float, activation: str | None
) -> None:
    weight, x = draw(40, 20), draw(30, 20)
    weight[4, 3], x[1, 7] = bad, bad
    found = Int8LinearPlan([weight], [None], [activation])(x)
    assert bool(found[1].isnan().all())
    assert bool(found[:, 4].isnan().all())
    others = [i for i in range(40) if i != 4]
    assert bool(found[[0, *range(2, 30)]][:, others].isfinite().all())


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_small_and_large_numbers_keep_their_digits(draw: Draw, scale: float) -> None:
    x, weight = draw(5, 30) * scale, draw(6, 30)
    close(
        Int8LinearPlan([weight], [None], [None])(x) / scale,
        by_the_formula(x, weight, None, None) / scale,
        torch.float32,
    )


ONE = torch.ones(3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "one each for every layer, got 0, 0 and 0"),
        (([ONE], [None, None], [None]), "one each for every layer, got 1, 2 and 1"),
        (([torch.ones(3)], [None], [None]), r"weights\[0\] must have shape \(E, D\)"),
        (([ONE, ONE], [None] * 2, [None] * 2), r"weights\[1\] must have shape \(E, 3\)"),
        (([ONE.double()], [None], [None]), "float32 or bfloat16"),
        (([ONE, torch.ones(2, 3).bfloat16()], [None] * 2, [None] * 2), "one dtype"),
        (([ONE], [torch.ones(4)], [None]), r"biases\[0\] must have shape \(3\)"),
        (([ONE], [None], ["tanh"]), "activation must be None or one of"),
        (([torch.ones(3, 0)], [None], [None]), "1 to 65536 inputs"),
        (([torch.ones(1, 65537)], [None], [None]), "1 to 65536 inputs"),
    ],
)
def test_layers_that_cannot_be_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Int8LinearPlan(*arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 4).bfloat16(), "x must be torch.float32 on a CPU"),
        (torch.ones(2, 5), r"x must have shape \(\.\.\., 4\)"),
        (torch.tensor(1.0), r"x must have shape \(\.\.\., 4\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Int8LinearPlan([ONE], [None], [None])(x)
