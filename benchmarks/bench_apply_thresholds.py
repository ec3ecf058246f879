"""apply_thresholds on a CPU against its named peers, on the weights of a ResNet-18.

The roof is a copy of the same weights: a sub-model has to be written once, and that is all it
should cost. The mask peer has its masks ready made, which K sub-models would have to store.

    pytest benchmarks/bench_apply_thresholds.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch

from lc_engine import ops
from lc_engine.ops import philox

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SHAPES = [(64, 3, 7, 7)] + [
    (out, width, 3, 3)
    for out, into in ((64, 64), (128, 64), (256, 128), (512, 256))
    for width in (into, out, out, out)
]
BOUND = 0.5


@cache
def weights(dtype: torch.dtype) -> list[Tensor]:
    seed = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=seed).to(dtype) for shape in SHAPES]


def masked(pristine: list[Tensor], saliency: list[Tensor]) -> list[Tensor]:
    return [torch.where(s >= BOUND, w, 0) for w, s in zip(pristine, saliency, strict=True)]


def where_loop(pristine: list[Tensor], live: list[Tensor]) -> None:
    for source, target in zip(pristine, live, strict=True):
        target.copy_(torch.where(source.abs() >= BOUND, source, 0))


def copy(pristine: list[Tensor], live: list[Tensor]) -> None:
    torch._foreach_copy_(live, pristine)


def mask_multiply(pristine: list[Tensor], live: list[Tensor], masks: list[Tensor]) -> None:
    for source, target, mask in zip(pristine, live, masks, strict=True):
        torch.mul(source, mask, out=target)


compiled = torch.compile(where_loop)


def time(benchmark, group: str, function: Callable[..., None], *arguments: object) -> list[Tensor]:
    pristine = arguments[0]
    live = [torch.full_like(w, 7.0) for w in pristine]
    benchmark.group = group
    benchmark.pedantic(
        function, (pristine, live, *arguments[1:]), rounds=15, warmup_rounds=2, iterations=1
    )
    return live


dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def group(dtype: torch.dtype, threads: int) -> str:
    return f"apply_thresholds ResNet-18 {dtype} {threads}t"


def check(live: list[Tensor], wanted: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(live, wanted, strict=True))


@dtypes
@pytest.mark.parametrize("form", ["magnitude", "random", "given"])
def test_engine(benchmark, threads, dtype, form):
    pristine = weights(dtype)
    scores = {
        "magnitude": [w.abs() for w in pristine],
        "random": [philox.uniform(shape, 3, i) for i, shape in enumerate(SHAPES)],
        "given": [w.abs().float() for w in pristine],
    }[form]
    given = {"magnitude": None, "random": ("random", 3), "given": scores}[form]
    live = time(
        benchmark,
        group(dtype, threads),
        lambda source, target: ops.apply_thresholds(source, target, BOUND, given),
        pristine,
    )
    check(live, masked(pristine, scores))


@dtypes
@pytest.mark.parametrize("peer", ["where-loop", "compiled-loop", "mask-multiply", "copy"])
def test_peer(benchmark, threads, dtype, peer):
    pristine = weights(dtype)
    masks = [(w.abs() >= BOUND).to(dtype) for w in pristine]
    wanted = pristine if peer == "copy" else masked(pristine, [w.abs() for w in pristine])
    function, extra = {
        "where-loop": (where_loop, ()),
        "compiled-loop": (compiled, ()),
        "mask-multiply": (mask_multiply, (masks,)),
        "copy": (copy, ()),
    }[peer]
    check(time(benchmark, group(dtype, threads), function, pristine, *extra), wanted)
