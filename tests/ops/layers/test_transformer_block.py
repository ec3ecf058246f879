"""A transformer's block in int8: against its formula, with attention in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from lc_engine.ops import Int8LinearPlan, TransformerBlockPlan, contract
from lc_engine.ops.layers.int8_linear import InputNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [torch.float32, torch.bfloat16]
# Samples, tokens, dims, heads, dims of a head: around a word, a vector, a tile of queries, a block
# of keys and a line of bytes.
SHAPES = [
    (1, 1, 8, 1, 4),
    (2, 5, 12, 2, 3),
    (3, 16, 24, 1, 24),
    (2, 17, 33, 3, 11),
    (2, 65, 16, 2, 16),
    (1, 113, 16, 1, 20),
    (2, 197, 48, 3, 64),
    (1, 230, 8, 1, 80),
]


def split(heads_of: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, T, 3 · H · E) as three of (N, H, T, E), float64."""
    wide = heads_of.double().unflatten(-1, (3, heads, -1))
    q, k, v = wide.permute(2, 0, 3, 1, 4)
    return q, k, v


def attended(qkv: Tensor, heads: int, scale: float) -> Tensor:
    q, k, v = split(qkv, heads)
    return ((q @ k.mT * scale).softmax(-1) @ v).transpose(1, 2).flatten(2)


class Parts:
    """The layers of a block, drawn."""

    def __init__(self, draw: Draw, dims: int, heads: int, each: int, dtype: torch.dtype) -> None:
        mixed, hidden = heads * each, 2 * dims + 1

        def layer(outputs: int, inputs: int) -> Tensor:
            return (draw(outputs, inputs) / math.sqrt(inputs)).to(dtype)

        norms = [
            InputNorm((1 + 0.1 * draw(dims)).to(dtype), draw(dims).to(dtype), 1e-6) for _ in "12"
        ]
        shift = draw(3 * mixed).to(dtype)
        self.qkv = Int8LinearPlan([layer(3 * mixed, dims)], [shift], [None], norms[0])
        self.projection = Int8LinearPlan([layer(dims, mixed)], [draw(dims).to(dtype)], [None])
        weights = [layer(hidden, dims), layer(dims, hidden)]
        self.mlp = Int8LinearPlan(weights, [None] * 2, ["gelu", None], norms[1])

    def plan(self, heads: int, scale: float | None = None) -> TransformerBlockPlan:
        return TransformerBlockPlan(self.qkv, self.projection, self.mlp, heads, scale)


def only_attention(qkv: Int8LinearPlan, heads: int, mixed: int, scale: float | None = None):
    """A block that gives what attention gives, and its input besides."""
    eye = torch.eye(mixed, dtype=qkv.dtype)
    nothing = Int8LinearPlan([torch.zeros_like(eye)] * 2, [None] * 2, [None] * 2)
    return TransformerBlockPlan(qkv, Int8LinearPlan([eye], [None], [None]), nothing, heads, scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_block(draw: Draw, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    samples, tokens, dims, heads, each = shape
    parts, x = Parts(draw, dims, heads, each, dtype), draw(samples, tokens, dims).to(dtype)
    for scale in (None, 0.7):
        mixed = attended(parts.qkv(x), heads, scale or 1 / math.sqrt(each))
        between = x.double() + parts.projection(mixed.to(dtype)).double()
        wanted = between + parts.mlp(between.to(dtype)).double()
        found = parts.plan(heads, scale)(x)
        assert found.dtype == dtype
        assert found.shape == x.shape
        apart = float((found.double() - wanted).norm() / (wanted - x.double()).norm())
        assert apart < 0.02


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 3, 40, 112])
def test_attention_in_int8(draw: Draw, dtype: torch.dtype, tokens: int) -> None:
    if not contract.native().multiplies_int8():
        pytest.skip("this processor has no VNNI")
    heads, each, scale = 2, 9, 0.6
    mixed = heads * each
    weight = draw(3 * mixed, mixed).to(dtype)
    qkv = Int8LinearPlan([weight], [None], [None])
    x = draw(2, tokens, mixed).to(dtype)
    q, k, v = split(qkv(x), heads)

    def rounded(values: Tensor, dim: int) -> Tensor:
        step = values.abs().amax(dim, keepdim=True) / 127
        return (values / step).round() * step

    scores = rounded(q, -1) @ rounded(k, -1).mT * scale
    weights = (255 * (scores - scores.amax(-1, keepdim=True)).exp()).round()
    wanted = (weights @ rounded(v, -2) / weights.sum(-1, keepdim=True)).transpose(1, 2).flatten(2)
    found = only_attention(qkv, heads, mixed, scale)(x).double() - x.double()
    # What is rounded further on: the inputs of the projection and, in bfloat16, three times.
    assert float((found - wanted).norm() / wanted.norm()) < 0.01


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scores_far_apart_and_all_alike(draw: Draw, dtype: torch.dtype) -> None:
    tokens, each = 150, 16
    weight = draw(3 * each, each).to(dtype)
    x = draw(2, tokens, each).to(dtype)
    # Scores of hundreds: one key takes all, a different one from block to block.
    qkv = Int8LinearPlan([weight], [None], [None])
    wanted = attended(qkv(x), 1, 40.0)
    found = only_attention(qkv, 1, each, 40.0)(x).double() - x.double()
    assert bool(found.isfinite().all())
    # Which of two keys is the larger may change by rounding to int8.
    near = (found - wanted).norm(dim=-1) < 0.05 * wanted.norm(dim=-1) + 0.05
    assert float(near.double().mean()) > 0.9
    # Without queries every key counts alike.
    weight[:each] = 0
    qkv = Int8LinearPlan([weight], [None], [None])
    found = only_attention(qkv, 1, each)(x).double() - x.double()
    means = split(qkv(x), 1)[2].mean(2).expand_as(found)
    assert float((found - means).norm()) < 0.05 * float(means.norm()) + 0.3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_sample(draw: Draw, dtype: torch.dtype, bad: float) -> None:
    x = draw(3, 20, 16).to(dtype)
    plan = Parts(draw, 16, 2, 8, dtype).plan(2)
    wanted = plan(x)
    x[1, 4, 7] = bad
    found = plan(x)
    assert bool(found[1].isnan().all())
    assert torch.equal(found[[0, 2]], wanted[[0, 2]])


def test_a_sample_does_not_depend_on_its_batch_nor_on_threads(
    draw: Draw, set_threads: Callable[[int], None]
) -> None:
    x, plan = draw(5, 30, 16), Parts(draw, 16, 2, 8, torch.float32).plan(2)
    set_threads(3)
    wanted = plan(x)
    set_threads(1)
    assert torch.equal(plan(x), wanted)
    assert torch.equal(plan(x[3:4]), wanted[3:4])
    turned = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(plan(turned), wanted)
    assert plan(x[:0]).shape == (0, 30, 16)


def test_what_does_not_fit_is_said(draw: Draw) -> None:
    parts = Parts(draw, 16, 2, 8, torch.float32)
    plan = parts.plan(2)
    for x, message in (
        (draw(2, 5, 15), r"x must have shape \(N, T, 16\) with a token, got \(2, 5, 15\)"),
        (draw(5, 16), r"x must have shape \(N, T, 16\)"),
        (draw(2, 0, 16), "with a token"),
        (draw(2, 5, 16).double(), "x must be torch.float32 on a CPU, got torch.float64"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(x)
    for heads in (0, 3):
        with pytest.raises(ValueError, match="heads must divide the 16 inputs of projection"):
            parts.plan(heads)
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="scale must be positive and finite"):
            parts.plan(2, scale)
    other = Parts(draw, 24, 2, 8, torch.float32)
    with pytest.raises(ValueError, match="projection must have 16 inputs and 16 outputs"):
        TransformerBlockPlan(parts.qkv, other.projection, parts.mlp, 2)
    with pytest.raises(ValueError, match="mlp must have 16 inputs and 16 outputs"):
        TransformerBlockPlan(parts.qkv, parts.projection, other.mlp, 2)
    with pytest.raises(ValueError, match="qkv must have 16 inputs and 48 outputs"):
        TransformerBlockPlan(parts.projection, parts.projection, parts.mlp, 2)
    narrow = Parts(draw, 16, 2, 8, torch.bfloat16)
    with pytest.raises(ValueError, match=r"mlp must have .* of torch\.float32, got .*bfloat16"):
        TransformerBlockPlan(parts.qkv, parts.projection, narrow.mlp, 2)
