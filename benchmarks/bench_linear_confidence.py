"""linear_confidence on a CPU against its named peers, per shape, thread count and batching.

Every peer is given its K masked weights ready made, as the engine is given its plan, and each
result is compared with the plain-torch reference before its time counts. The peers' work does not
depend on where the path lies (they multiply by zeros); the engine is timed on four paths, with
float32 and with bfloat16 features and weights. Of few sub-models, 8 Gauss nodes, the peer is the
fastest of the loops.

    pytest benchmarks/bench_linear_confidence.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
from torch.nn.functional import linear

from lc_engine import LearningPath, ops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

# (dims, classes) -> rows: fewer where the naive loop would take minutes. All peers of a shape see
# the same rows.
ROWS = {
    (512, 10): 4096,
    (768, 1000): 4096,
    (1280, 100): 4096,
    (2048, 1000): 1024,
    (768, 21841): 256,
}
BATCH = 256
PATHS = {
    "geometric50": LearningPath.geometric(50, 0.02),
    "linear50": LearningPath.linear(50, 0.02, 1.0),
    "geometric5": LearningPath.geometric(5, 0.219),  # down to the same 37 %
    "gauss8": LearningPath.gauss(8),
}


class Head(NamedTuple):
    features: Tensor
    weight: Tensor
    bias: Tensor
    labels: Tensor

    def thresholds(self, path: LearningPath) -> Tensor:
        saliency = self.weight.float().abs().flatten().sort(descending=True).values
        return torch.stack([saliency[n - 1] for n in path.keep_counts(saliency.numel())])

    def masked(self, path: LearningPath, dtype: torch.dtype) -> Tensor:
        kept = [torch.where(self.weight.abs() >= t, self.weight, 0) for t in self.thresholds(path)]
        return torch.stack(kept).to(dtype)


@cache
def head(dims: int, classes: int) -> Head:
    rows, seed = ROWS[dims, classes], torch.Generator().manual_seed(dims + classes)
    return Head(
        torch.randn(rows, dims, generator=seed),
        torch.randn(classes, dims, generator=seed) * dims**-0.5,
        torch.randn(classes, generator=seed) * 0.1,
        torch.randint(classes, (rows,), generator=seed),
    )


def label_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.softmax(logits, -1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def loop(
    x: Tensor, weights: Tensor, bias: Tensor, labels: Tensor, omega: Sequence[float] = ()
) -> Tensor:
    total = torch.zeros(len(x))
    for k, weight in enumerate(weights):
        share = omega[k] if omega else 1 / len(weights)
        total += share * label_confidence(linear(x, weight, bias).float(), labels)
    return total


def einsum(x: Tensor, weights: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    logits = torch.einsum("nd,kcd->knc", x, weights) + bias
    return label_confidence(logits, labels.expand(len(weights), -1)).mean(0)


def vmap(x: Tensor, weights: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    one = torch.func.vmap(lambda w: label_confidence(linear(x, w, bias), labels))
    return one(weights).mean(0)


PEERS: dict[str, tuple[Callable[..., Tensor], torch.dtype, float]] = {
    # name: function, dtype of its products, largest difference that it may have from the reference
    "naive-loop": (loop, torch.float32, 1e-5),
    "bfloat16-loop": (loop, torch.bfloat16, 5e-2),
    "compiled-loop": (torch.compile(loop), torch.float32, 1e-5),
    "einsum": (einsum, torch.float32, 1e-5),
    "vmap": (vmap, torch.float32, 1e-5),
}


@pytest.fixture(params=[1, 2], ids=["1thread", "2threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=["whole", "stream"])
def batches(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(batches: str, h: Head, score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    if batches == "whole":
        return score(h.features, h.labels)
    pairs = zip(h.features.split(BATCH), h.labels.split(BATCH), strict=True)
    return torch.cat([score(x, y) for x, y in pairs])


def group(dims: int, classes: int, threads: int, batches: str) -> str:
    if batches == "stream" and ROWS[dims, classes] <= BATCH:
        pytest.skip("its rows are one batch: the same as whole")
    return f"linear_confidence D={dims} C={classes} N={ROWS[dims, classes]} {threads}t {batches}"


@cache
def expected(dims: int, classes: int, path: str) -> Tensor:
    h, points = head(dims, classes), PATHS[path]
    return ops.linear_confidence(
        h.features,
        h.weight,
        h.bias,
        h.labels,
        h.thresholds(points),
        path_weights=points.weights,
        backend="reference",
    ).lc


shapes = pytest.mark.parametrize(("dims", "classes"), list(ROWS), ids=lambda n: str(n))


def time_engine(benchmark, h: Head, path: str, batches: str) -> Tensor:
    points = PATHS[path]
    plan = ops.LinearPlan(h.weight, h.bias, h.thresholds(points), path_weights=points.weights)
    scores: Tensor = benchmark.pedantic(
        run, (batches, h, lambda x, y: plan(x, y).lc), rounds=7, warmup_rounds=1
    )
    return scores


@shapes
@pytest.mark.parametrize("path", list(PATHS))
def test_engine(benchmark, dims, classes, threads, batches, path):
    benchmark.group = group(dims, classes, threads, batches)
    lc = time_engine(benchmark, head(dims, classes), path, batches)
    torch.testing.assert_close(lc, expected(dims, classes, path), atol=1e-5, rtol=1e-4)


@shapes
@pytest.mark.parametrize("path", list(PATHS))
def test_engine_bfloat16(benchmark, dims, classes, threads, batches, path):
    benchmark.group = group(dims, classes, threads, batches)
    h = head(dims, classes)
    short = Head(h.features.bfloat16(), h.weight.bfloat16(), h.bias.bfloat16(), h.labels)
    lc = time_engine(benchmark, short, path, batches)
    torch.testing.assert_close(lc, expected(dims, classes, path), atol=5e-2, rtol=1e-4)


@shapes
def test_one_dense_forward(benchmark, dims, classes, threads, batches):
    time_dense_forward(benchmark, dims, classes, threads, batches, torch.float32)


@shapes
def test_one_dense_forward_bfloat16(benchmark, dims, classes, threads, batches):
    time_dense_forward(benchmark, dims, classes, threads, batches, torch.bfloat16)


def time_dense_forward(benchmark, dims, classes, threads, batches, dtype):
    h = head(dims, classes)
    benchmark.group = group(dims, classes, threads, batches)
    weight, bias = h.weight.to(dtype), h.bias.to(dtype)
    short = h._replace(features=h.features.to(dtype))
    benchmark.pedantic(
        run,
        (batches, short, lambda x, y: label_confidence(linear(x, weight, bias).float(), y)),
        rounds=7,
        warmup_rounds=1,
    )


@shapes
def test_bfloat16_loop_of_8(benchmark, dims, classes, threads, batches):
    benchmark.group = group(dims, classes, threads, batches)
    h, path = head(dims, classes), PATHS["gauss8"]
    weights, bias = h.masked(path, torch.bfloat16), h.bias.bfloat16()
    lc = benchmark.pedantic(
        run,
        (batches, h, lambda x, y: loop(x.bfloat16(), weights, bias, y, path.weights)),
        rounds=3,
        warmup_rounds=1,
    )
    torch.testing.assert_close(lc, expected(dims, classes, "gauss8"), atol=5e-2, rtol=1e-4)


@shapes
@pytest.mark.parametrize("peer", list(PEERS))
def test_peer(benchmark, dims, classes, threads, batches, peer):
    if classes > 10_000 and peer in ("einsum", "vmap"):
        pytest.skip(f"{peer}: its (K, N, C) tensor of {classes} classes does not pay to try")
    function, dtype, tolerance = PEERS[peer]
    benchmark.group = group(dims, classes, threads, batches)
    h = head(dims, classes)
    weights, bias = h.masked(PATHS["linear50"], dtype), h.bias.to(dtype)
    lc = benchmark.pedantic(
        run,
        (batches, h, lambda x, y: function(x.to(dtype), weights, bias, y)),
        rounds=2 if (dims, classes) == (768, 1000) else 1,
        warmup_rounds=1,
    )
    torch.testing.assert_close(
        lc.float(), expected(dims, classes, "linear50"), atol=tolerance, rtol=1e-4
    )
