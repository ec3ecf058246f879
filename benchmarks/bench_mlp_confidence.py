"""mlp_confidence on a CPU against its named peers, per shape, path and thread count.

Every peer is given its K masked weights ready made, as the engine is given its plan. The first
layer costs the engine one dense product for all K; every later layer has K inputs, so K products
are due, and what can be saved is what the sparse sub-models leave out.

    pytest benchmarks/bench_mlp_confidence.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
from torch.nn.functional import linear

from lc_engine import LearningPath
from lc_engine.ops.mlp_confidence import MLPPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# widths of the layers -> rows
ROWS = {(768, 512, 10): 1024, (768, 512, 1000): 256, (1280, 256, 256, 100): 1024}
PATHS = {
    "geometric50": LearningPath.geometric(50, 0.02),
    "linear50": LearningPath.linear(50, 0.02, 1.0),
    "gauss8": LearningPath.gauss(8),
}


class Head(NamedTuple):
    features: Tensor
    weights: list[Tensor]
    biases: list[Tensor]
    labels: Tensor

    def thresholds(self, path: LearningPath) -> Tensor:
        saliency = torch.cat([w.abs().flatten() for w in self.weights]).sort(descending=True).values
        return torch.stack([saliency[n - 1] for n in path.keep_counts(saliency.numel())])

    def masked(self, path: LearningPath, dtype: torch.dtype) -> list[Tensor]:
        """One (K, outputs, inputs) per layer."""
        bounds = self.thresholds(path)[:, None, None]
        return [torch.where(w.abs() >= bounds, w, 0).to(dtype) for w in self.weights]


@cache
def head(widths: tuple[int, ...]) -> Head:
    rows, seed = ROWS[widths], torch.Generator().manual_seed(sum(widths))
    return Head(
        torch.randn(rows, widths[0], generator=seed),
        [
            torch.randn(outputs, inputs, generator=seed) * (2 / inputs) ** 0.5
            for inputs, outputs in pairwise(widths)
        ],
        [torch.randn(outputs, generator=seed) * 0.1 for outputs in widths[1:]],
        torch.randint(widths[-1], (rows,), generator=seed),
    )


@cache
def expected(widths: tuple[int, ...], path: str) -> Tensor:
    h = head(widths)
    plan = MLPPlan(h.weights, h.biases, h.thresholds(PATHS[path]), backend="reference")
    return plan(h.features, h.labels).lc


def label_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.softmax(logits.float(), -1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def forward(x: Tensor, weights: list[Tensor], biases: list[Tensor], labels: Tensor) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = linear(x.relu() if layer else x, weight, bias)
    return label_confidence(x, labels)


def loop(x: Tensor, weights: list[Tensor], biases: list[Tensor], labels: Tensor) -> Tensor:
    total = torch.zeros(len(x))
    for sub_model in zip(*weights, strict=True):
        total += forward(x, list(sub_model), biases, labels)
    return total / len(weights[0])


def vmap(x: Tensor, weights: list[Tensor], biases: list[Tensor], labels: Tensor) -> Tensor:
    return torch.func.vmap(lambda w: forward(x, w, biases, labels))(weights).mean(0)


PEERS: dict[str, tuple[Callable[..., Tensor], torch.dtype, float]] = {
    "naive-loop": (loop, torch.float32, 1e-5),
    "bfloat16-loop": (loop, torch.bfloat16, 5e-2),
    "compiled-loop": (torch.compile(loop), torch.float32, 1e-5),
    "vmap": (vmap, torch.float32, 1e-5),
}


def group(widths: tuple[int, ...], threads: int) -> str:
    name = "-".join(map(str, widths))
    return f"mlp_confidence {name} N={ROWS[widths]} {threads}t"


shapes = pytest.mark.parametrize("widths", list(ROWS), ids=str)


@shapes
@pytest.mark.parametrize("path", list(PATHS))
def test_engine(benchmark, widths, threads, path):
    h = head(widths)
    plan = MLPPlan(h.weights, h.biases, h.thresholds(PATHS[path]))
    benchmark.group = group(widths, threads)
    lc = benchmark.pedantic(lambda: plan(h.features, h.labels).lc, rounds=5, warmup_rounds=1)
    torch.testing.assert_close(lc, expected(widths, path), atol=1e-5, rtol=1e-4)


@shapes
@pytest.mark.parametrize("peer", list(PEERS))
def test_peer(benchmark, widths, threads, peer):
    function, dtype, tolerance = PEERS[peer]
    h = head(widths)
    weights, biases = h.masked(PATHS["linear50"], dtype), [b.to(dtype) for b in h.biases]
    benchmark.group = group(widths, threads)
    lc = benchmark.pedantic(
        function, (h.features.to(dtype), weights, biases, h.labels), rounds=3, warmup_rounds=1
    )
    torch.testing.assert_close(lc, expected(widths, "linear50"), atol=tolerance, rtol=1e-4)
