"""What breaking ties costs, against thresholds alone, which keep all weights that tie.

Three kinds of weights: of float32, which hardly tie; of bfloat16, of which some tie at every
threshold (lists); and of 15 levels as a 4-bit format has them (levels). Four pieces of work: the
masks of a ResNet-18, the weights of one of its sub-models, the plan of a head and a batch of it.

    pytest benchmarks/bench_ties.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.bench_apply_thresholds import SHAPES
from lc_engine import LearningPath, Masking, ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lc_engine.masking import Masks

PATH = LearningPath.gauss(8, 0.3, 1.0)
HEAD = (1000, 768)
POINT = 5  # the sub-model whose weights are written
# Which form the masks of each kind have.
FORMS = {"float32": "thresholds", "bfloat16": "lists", "4 bits": "levels"}


def drawn(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if kind == "float32":
        return values
    return values.bfloat16() if kind == "bfloat16" else (values * 3).round().clamp(-7, 7) / 3


@cache
def network(kind: str) -> tuple[dict[str, Tensor], Masks, Tensor]:
    weights = {str(i): drawn(kind, shape, i) for i, shape in enumerate(SHAPES)}
    return weights, Masking().masks(weights, PATH), Masking().thresholds(weights, PATH)


def form(masks: Masks) -> str:
    if masks.dropped:
        return "lists"
    return "thresholds" if masks.saliency is None else "levels"


def make(kind: str, broken: bool) -> Callable[[], object]:
    weights, _, _ = network(kind)
    made = Masking().masks if broken else Masking().thresholds
    return lambda: made(weights, PATH)


def write(kind: str, broken: bool) -> Callable[[], object]:
    weights, masks, thresholds = network(kind)
    assert form(masks) == FORMS[kind]
    pristine = list(weights.values())
    live = [torch.empty_like(weight) for weight in pristine]
    if not broken:
        bounds = thresholds[POINT].tolist()
        return lambda: ops.apply_thresholds(pristine, live, bounds)
    bounds, dropped = masks.thresholds[POINT].tolist(), masks.dropped_at(POINT)

    def work() -> None:
        ops.apply_thresholds(pristine, live, bounds, masks.saliency, dropped=dropped)

    work()
    assert sum(int(torch.count_nonzero(one)) for one in live) == masks.kept[POINT]
    return work


def plan(kind: str, broken: bool) -> Callable[[], ops.LinearPlan]:
    weight = drawn(kind, HEAD, 0)
    bias = torch.zeros(len(weight), dtype=weight.dtype)
    masking, saliency = Masking(weights="head"), None
    if broken:
        bounds, saliency = masking.masks({"weight": weight}, PATH).of(0, weight)
    else:
        bounds = masking.thresholds({"weight": weight}, PATH)[:, 0].contiguous()
    return lambda: ops.LinearPlan(weight, bias, bounds, saliency=saliency)


def batch(kind: str, broken: bool) -> Callable[[], object]:
    made, labels = plan(kind, broken)(), torch.arange(256)
    rows = torch.randn(256, HEAD[1], generator=torch.Generator().manual_seed(1))
    rows = rows.to(made.weight.dtype)
    return lambda: made(rows, labels)


WORK = {
    "masks of ResNet-18": (make, 5),
    "weights of ResNet-18": (write, 40),
    "head's plan": (plan, 20),
    "head's batch": (batch, 20),
}
kinds = pytest.mark.parametrize("kind", FORMS)
works = pytest.mark.parametrize("what", WORK)


def time(benchmark, what: str, kind: str, broken: bool) -> None:
    function, rounds = WORK[what]
    benchmark.group = f"ties: {what}, {kind}"
    benchmark.pedantic(function(kind, broken), rounds=rounds, warmup_rounds=2)


@kinds
@works
def test_engine(benchmark, what, kind):
    time(benchmark, what, kind, broken=True)


@kinds
@works
@pytest.mark.parametrize("peer", ["ties-kept"])
def test_peer(benchmark, what, kind, peer):
    time(benchmark, what, kind, broken=False)
