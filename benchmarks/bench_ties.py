"""What breaking ties costs, against thresholds alone, which keep all weights that tie.

Three kinds of weights: of float32, which hardly tie; of bfloat16, of which some tie at every
threshold (lists); and of 15 levels as a 4-bit format has them (levels). The first two masks of a
path stand for all: writing a sub-model's weights, making the masks, and a head's plan and batch.

    pytest benchmarks/bench_ties.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.bench_apply_thresholds import SHAPES
from lc_engine import LearningPath, Masking, ops

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.masking import Masks

PATH = LearningPath.gauss(8, 0.3, 1.0)
HEAD = (1000, 768)
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


def group(benchmark: Any, what: str, kind: str) -> None:
    benchmark.group = f"{what}, {kind}"


kinds = pytest.mark.parametrize("kind", FORMS)
ways = pytest.mark.parametrize("way", ["broken", "kept"])


@kinds
@ways
def test_write(benchmark, threads, kind, way):
    weights, masks, thresholds = network(kind)
    assert form(masks) == FORMS[kind]
    pristine = list(weights.values())
    live = [torch.empty_like(weight) for weight in pristine]
    k = 5
    group(benchmark, f"write the weights of ResNet-18, {threads}t", kind)
    if way == "kept":
        bounds = thresholds[k].tolist()
        benchmark.pedantic(
            lambda: ops.apply_thresholds(pristine, live, bounds), rounds=40, warmup_rounds=3
        )
        return
    bounds, dropped = masks.thresholds[k].tolist(), masks.dropped_at(k)
    benchmark.pedantic(
        lambda: ops.apply_thresholds(pristine, live, bounds, masks.saliency, dropped=dropped),
        rounds=40,
        warmup_rounds=3,
    )
    assert sum(int(torch.count_nonzero(one)) for one in live) == masks.kept[k]


@kinds
@ways
def test_make(benchmark, kind, way):
    weights, _, _ = network(kind)
    make = Masking().masks if way == "broken" else Masking().thresholds
    group(benchmark, "make the masks of ResNet-18", kind)
    benchmark.pedantic(make, (weights, PATH), rounds=5, warmup_rounds=1)


@kinds
@ways
@pytest.mark.parametrize("what", ["plan", "batch"])
def test_head(benchmark, kind, way, what):
    weight = drawn(kind, HEAD, 0)
    masking = Masking(weights="head")
    if way == "broken":
        bounds, saliency = masking.masks({"weight": weight}, PATH).of(0, weight)
    else:
        bounds, saliency = masking.thresholds({"weight": weight}, PATH)[:, 0].contiguous(), None
    bias = torch.zeros(len(weight), dtype=weight.dtype)

    def plan() -> ops.LinearPlan:
        return ops.LinearPlan(weight, bias, bounds, saliency=saliency)

    group(benchmark, f"{what} of a head of 768 × 1,000", kind)
    if what == "plan":
        benchmark.pedantic(plan, rounds=20, warmup_rounds=2)
        return
    made, labels = plan(), torch.arange(256)
    rows = torch.randn(256, HEAD[1], generator=torch.Generator().manual_seed(1)).to(weight.dtype)
    benchmark.pedantic(made, (rows, labels), rounds=20, warmup_rounds=2)
