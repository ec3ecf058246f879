"""The contenders: each operator of ours beside what one would write without it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lc_engine.kernels import apply_thresholds as threshold_kernels
from lc_engine.kernels import config, work_model
from lc_engine.kernels import linear_confidence as linear_kernels
from lc_engine.kernels import mlp_confidence as mlp_kernels
from lc_engine.kernels import prototype_confidence as prototype_kernels
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.kernels.config import Target
    from lc_engine.kernels.work_model import Work

# Rows on which results are compared with float64.
CHECKED = 512
# The shape at which torch.compile takes part too: it compiles for seconds per shape.
COMPILED = (768, 1000)
SHAPES = ((512, 10), (768, 1000), (1280, 100), (2048, 1000), (768, 21841))


@dataclass(frozen=True)
class Contest:
    """One problem and everybody who solves it.

    Attributes:
        name: operator and shape.
        dtype: of features and weights.
        contenders: name -> a call that gives lc (N,); ours begin with "lc_engine".
        expected: a call that gives lc of the first `CHECKED` rows in float64.
        work: what our launch does, by the work model.
        tolerance: allowed difference of ours from `expected`.
    """

    name: str
    dtype: torch.dtype
    contenders: dict[str, Callable[[], Tensor]]
    expected: Callable[[], Tensor]
    work: Work
    tolerance: float = 1e-5


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.softmax(logits.float(), -1).gather(1, labels[:, None]).squeeze(1)


def linear(target: Target, samples: int, sub_models: int) -> Iterator[Contest]:
    for dtype in (torch.bfloat16, torch.float32):
        for depth, classes in SHAPES:
            rows = samples if classes < 10_000 else samples // 16
            yield _linear(target, rows, depth, classes, sub_models, dtype)


def _linear(
    target: Target, samples: int, depth: int, classes: int, sub_models: int, dtype: torch.dtype
) -> Contest:
    x = torch.randn(samples, depth, device="cuda", dtype=dtype)
    w = (3 * torch.randn(classes, depth, device="cuda") / math.sqrt(depth)).to(dtype)
    y = torch.randint(0, classes, (samples,), device="cuda")
    t = torch.linspace(0, 3 / math.sqrt(depth), sub_models, device="cuda")
    omega = torch.full((sub_models,), 1 / sub_models, dtype=torch.float64, device="cuda")

    def step(threshold: Tensor) -> Tensor:
        return confidence(x @ torch.where(w.abs() >= threshold, w, 0).T, y)

    def loop(step: Callable[[Tensor], Tensor] = step) -> Tensor:
        return sum(map(step, t), torch.zeros(samples, device="cuda")) / sub_models

    def expected() -> Tensor:
        total = torch.zeros(CHECKED, dtype=torch.float64, device="cuda")
        for threshold in t:
            masked = torch.where(w.abs().float() >= threshold, w, 0).double()
            p = torch.softmax(x[:CHECKED].double() @ masked.T, -1)
            total += p.gather(1, y[:CHECKED, None]).squeeze(1)
        return total / sub_models

    contenders: dict[str, Callable[[], Tensor]] = {"naive loop": loop}
    if (depth, classes) == COMPILED:
        contenders["torch.compile"] = functools.partial(loop, torch.compile(step))
    formulations = [False]
    if config.premask(dtype.itemsize, classes, depth, sub_models):
        formulations.append(True)
        stack = [torch.where(w.abs() >= threshold, w, 0).T.contiguous() for threshold in t]

        def library() -> Tensor:
            total = torch.zeros(samples, device="cuda")
            for masked in stack:
                total += confidence(x @ masked, y)
            return total / sub_models

        contenders["pre-masked library"] = library
    for premasked in formulations:
        head = linear_kernels.prepare(w, None, t, None, None, premasked=premasked)
        name = "lc_engine pre-masked" if premasked else "lc_engine expanded"
        contenders[name] = lambda head=head: (
            linear_kernels.linear_confidence(x, head, y, omega, False).lc
        )
    tile = config.linear(target, dtype.itemsize, classes, sub_models)
    work = work_model.linear(
        samples, depth, classes, sub_models, dtype.itemsize, tile, premasked=formulations[-1]
    )
    name = f"linear_confidence N={samples} D={depth} C={classes} K={sub_models}"
    return Contest(name, dtype, contenders, expected, work)


def prototype(target: Target, samples: int, sub_models: int) -> Iterator[Contest]:
    for dtype in (torch.bfloat16, torch.float32):
        for logit in ("inverse_distance", "cosine"):
            yield _prototype(target, samples, 768, 1000, sub_models, dtype, logit)


def _prototype(
    target: Target,
    samples: int,
    depth: int,
    classes: int,
    sub_models: int,
    dtype: torch.dtype,
    logit: str,
) -> Contest:
    z = torch.randn(sub_models, samples, depth, device="cuda", dtype=dtype)
    mu = torch.randn(classes, depth, device="cuda", dtype=dtype)
    y = torch.randint(0, classes, (samples,), device="cuda")
    omega = torch.full((sub_models,), 1 / sub_models, dtype=torch.float64, device="cuda")
    cosine, temperature = logit == "cosine", 0.05
    head = prototype_kernels.prepare(mu, logit, temperature)

    def logits_of(one: Tensor, mu: Tensor) -> Tensor:
        if cosine:
            unit = torch.nn.functional.normalize
            return unit(one, dim=1) @ unit(mu, dim=1).T / temperature
        # The default turns to the product form, which loses small distances.
        distance = torch.cdist(one, mu, compute_mode="donot_use_mm_for_euclid_dist")
        return 1 / (distance * temperature)

    def loop() -> Tensor:
        parts = (confidence(logits_of(one.float(), mu.float()), y) for one in z)
        return torch.stack(list(parts)).mean(0)

    def expected() -> Tensor:
        parts = []
        for one in z[:, :CHECKED].double():
            p = torch.softmax(logits_of(one, mu.double()), -1)
            parts.append(p.gather(1, y[:CHECKED, None]).squeeze(1))
        return torch.stack(parts).mean(0)

    def ours() -> Tensor:
        return prototype_kernels.prototype_confidence(
            z, head, y, omega, False, min_distance=1e-12, min_norm=1e-12
        ).lc

    tile = config.prototype(target, dtype.itemsize, cosine)
    work = work_model.prototype(
        samples, depth, classes, sub_models, dtype.itemsize, tile, cosine=cosine
    )
    name = f"prototype_confidence {logit} N={samples} D={depth} C={classes} K={sub_models}"
    return Contest(name, dtype, {"naive loop": loop, "lc_engine": ours}, expected, work)


def mlp(target: Target, samples: int, sub_models: int) -> Iterator[Contest]:
    for dtype in (torch.bfloat16, torch.float32):
        width = config.mlp_width(target, dtype.itemsize, plain=True)
        yield _mlp(target, samples, 768, width, 1000, sub_models, dtype)


def _mlp(
    target: Target,
    samples: int,
    depth: int,
    width: int,
    classes: int,
    sub_models: int,
    dtype: torch.dtype,
) -> Contest:
    x = torch.randn(samples, depth, device="cuda", dtype=dtype)
    weights = [
        (3 * torch.randn(o, i, device="cuda") / math.sqrt(i)).to(dtype)
        for i, o in ((depth, width), (width, classes))
    ]
    y = torch.randint(0, classes, (samples,), device="cuda")
    t = torch.linspace(0, 3 / math.sqrt(depth), sub_models, device="cuda").expand(2, -1)
    omega = torch.full((sub_models,), 1 / sub_models, dtype=torch.float64, device="cuda")
    head = mlp_kernels.prepare(weights, [None, None], t, None, None, "relu")

    def forward(x: Tensor, k: int) -> Tensor:
        first, last = (
            torch.where(w.abs().float() >= t[layer, k], w, 0).to(x.dtype)
            for layer, w in enumerate(weights)
        )
        return torch.relu(x @ first.T) @ last.T

    def loop() -> Tensor:
        return torch.stack([confidence(forward(x, k), y) for k in range(sub_models)]).mean(0)

    def expected() -> Tensor:
        few = x[:CHECKED].double()
        parts = (torch.softmax(forward(few, k), -1) for k in range(sub_models))
        return torch.stack([p.gather(1, y[:CHECKED, None]).squeeze(1) for p in parts]).mean(0)

    def ours() -> Tensor:
        return mlp_kernels.mlp_confidence(x, head, y, omega, False).lc

    tile = config.mlp(target, dtype.itemsize)
    work = work_model.mlp(samples, depth, width, classes, sub_models, dtype.itemsize, tile)
    name = f"mlp_confidence N={samples} D={depth} H={width} C={classes} K={sub_models}"
    # Between the layers bfloat16 rounds hidden activations, as any bfloat16 network does.
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-5
    return Contest(name, dtype, {"naive loop": loop, "lc_engine": ours}, expected, work, tolerance)


def thresholds() -> Iterator[Contest]:
    for dtype in (torch.bfloat16, torch.float32):
        # The weights of a ViT-B: 12 blocks of four matrices.
        yield _thresholds([(2304, 768), (768, 768), (3072, 768), (768, 3072)] * 12, dtype)


def _thresholds(shapes: list[tuple[int, int]], dtype: torch.dtype) -> Contest:
    weights = [torch.randn(shape, device="cuda", dtype=dtype) for shape in shapes]
    live = [torch.empty_like(w) for w in weights]
    bound = torch.tensor(0.7, dtype=torch.float32, device="cuda")

    def loop() -> Tensor:
        for source, target in zip(weights, live, strict=True):
            torch.mul(source, source.abs() >= bound, out=target)
        return live[-1].flatten()[:CHECKED]

    def ours() -> Tensor:
        threshold_kernels.apply_thresholds(weights, live, [0.7] * len(weights), [], None)
        return live[-1].flatten()[:CHECKED]

    def expected() -> Tensor:
        flat = weights[-1].flatten()[:CHECKED]
        return torch.where(flat.abs().float() >= bound, flat, 0).double()

    count = sum(w.numel() for w in weights)
    work = work_model.apply_thresholds(count, dtype.itemsize)
    name = f"apply_thresholds {count} weights in {len(weights)} tensors"
    return Contest(name, dtype, {"torch loop": loop, "lc_engine": ours}, expected, work, 0.0)
