"""prototype_confidence on a CPU against its named peers, per shape and thread count.

Distances are those of the released code, 1/d. "direct" peers form z − μ before they square it, as
the engine does; "mm" peers use |z|² + |μ|² − 2z·μ, which is a matrix product and loses the digits
of small distances. Every result is compared with the float64 reference.

    pytest benchmarks/bench_prototype_confidence.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch

from lc_engine import ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SUB_MODELS = 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# (dims, classes) -> rows
ROWS = {(512, 10): 4096, (768, 1000): 256, (1280, 100): 1024}


class Case(NamedTuple):
    features: Tensor
    prototypes: Tensor
    labels: Tensor


@cache
def case(dims: int, classes: int) -> Case:
    rows, seed = ROWS[dims, classes], torch.Generator().manual_seed(dims + classes)
    prototypes = torch.randn(classes, dims, generator=seed) * dims**-0.5
    labels = torch.randint(classes, (rows,), generator=seed)
    noise = torch.randn(SUB_MODELS, rows, dims, generator=seed) * dims**-0.5
    return Case(prototypes[labels] + noise * 0.5, prototypes, labels)


@cache
def expected(dims: int, classes: int) -> Tensor:
    z, mu, labels = case(dims, classes)
    return ops.prototype_confidence(z.double(), mu.double(), labels, backend="reference").lc.float()


def label_confidence(distances: Tensor, labels: Tensor) -> Tensor:
    p = torch.softmax(1 / distances, -1)
    return p.gather(-1, labels.expand(p.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def direct_loop(z: Tensor, mu: Tensor, labels: Tensor) -> Tensor:
    mode = "donot_use_mm_for_euclid_dist"
    return torch.stack(
        [label_confidence(torch.cdist(one, mu, compute_mode=mode), labels) for one in z]
    ).mean(0)


def mm_loop(z: Tensor, mu: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros(z.shape[1])
    for one in z:
        squares = one.square().sum(-1, keepdim=True) + mu.square().sum(-1) - 2 * (one @ mu.T)
        total += label_confidence(squares.float().clamp_min(0).sqrt(), labels)
    return total / len(z)


def mm_batched(z: Tensor, mu: Tensor, labels: Tensor) -> Tensor:
    mode = "use_mm_for_euclid_dist"
    return label_confidence(torch.cdist(z, mu, compute_mode=mode), labels).mean(0)


PEERS: dict[str, tuple[Callable[..., Tensor], torch.dtype, float]] = {
    "naive-direct-loop": (direct_loop, torch.float32, 1e-5),
    "mm-loop": (mm_loop, torch.float32, 1e-4),
    "mm-batched": (mm_batched, torch.float32, 1e-4),
    "mm-compiled-loop": (torch.compile(mm_loop), torch.float32, 1e-4),
    "mm-bfloat16-loop": (mm_loop, torch.bfloat16, 5e-2),
}


def group(dims: int, classes: int, threads: int) -> str:
    rows = ROWS[dims, classes]
    return f"prototype_confidence K={SUB_MODELS} D={dims} C={classes} N={rows} {threads}t"


shapes = pytest.mark.parametrize(("dims", "classes"), list(ROWS), ids=str)


@shapes
@pytest.mark.parametrize("form", list(DTYPES))
def test_engine(benchmark, dims, classes, threads, form):
    c = case(dims, classes)
    plan = ops.PrototypePlan(c.prototypes)
    z = c.features.to(DTYPES[form])
    benchmark.group = group(dims, classes, threads)
    lc = benchmark.pedantic(lambda: plan(z, c.labels).lc, rounds=7, warmup_rounds=1)
    tolerance = 1e-5 if form == "float32" else 2e-2
    torch.testing.assert_close(lc, expected(dims, classes), atol=tolerance, rtol=1e-4)


@shapes
@pytest.mark.parametrize("peer", list(PEERS))
def test_peer(benchmark, dims, classes, threads, peer):
    function, dtype, tolerance = PEERS[peer]
    c = case(dims, classes)
    benchmark.group = group(dims, classes, threads)
    lc = benchmark.pedantic(
        function,
        (c.features.to(dtype), c.prototypes.to(dtype), c.labels),
        rounds=3,
        warmup_rounds=1,
    )
    torch.testing.assert_close(lc.float(), expected(dims, classes), atol=tolerance, rtol=1e-4)
