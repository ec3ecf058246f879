"""Contests: every operator against the code that one would write without it.

Tensors are made on torch's default device while a contest is made, and not while it is run.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lc_engine import ops
from lc_engine.kernels import apply_thresholds as threshold_kernels
from lc_engine.kernels import config, work_model
from lc_engine.kernels import linear_confidence as linear_kernels
from lc_engine.kernels import mlp_confidence as mlp_kernels
from lc_engine.kernels import prototype_confidence as prototype_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.kernels.targets import Target
    from lc_engine.kernels.work_model import Work

# Rows on which results are compared with float64.
CHECKED = 512
# The only shape of torch.compile, which compiles for seconds per shape.
COMPILED = (768, 1000)


@dataclass(frozen=True)
class Sizes:
    """Sizes of all contests.

    Attributes:
        samples: N of heads; an eighth for distances and for large vocabularies.
        sub_models: K of heads.
        heads: features D and classes C of linear heads.
        hidden: units of MLP heads.
        prototypes: D and C.
        layer: rows, inputs and outputs of a masked layer.
        vocabulary: tokens, D and V.
        weights: shapes of the tensors that thresholds are applied to.
        backend: of torch.compile.
    """

    samples: int = 131_072
    sub_models: int = 50
    heads: tuple[tuple[int, int], ...] = (
        (512, 10), (768, 1000), (1280, 100), (2048, 1000), (768, 21841),
    )  # fmt: skip
    hidden: tuple[int, ...] = (64, 128, 256)
    prototypes: tuple[int, int] = (768, 1000)
    # The first layer of a ViT-B's MLP over the tokens of 16 images.
    layer: tuple[int, int, int] = (16 * 197, 768, 3072)
    # The head of Llama 3.2 1B.
    vocabulary: tuple[int, int, int] = (4096, 2048, 128_256)
    # The weights of a ViT-B: 12 blocks of four matrices.
    weights: tuple[tuple[int, int], ...] = (
        ((2304, 768), (768, 768), (3072, 768), (768, 3072)) * 12
    )  # fmt: skip
    backend: str = "inductor"


# As small as the kernels' blocks allow to be ragged, for a rehearsal in the interpreter.
TINY = Sizes(
    samples=40, sub_models=3, heads=((24, 10), (*COMPILED[:1], 20)), hidden=(16,),
    prototypes=(24, 20), layer=(40, 24, 32), vocabulary=(12, 32, 150),
    weights=((20, 12), (7, 5)), backend="eager",
)  # fmt: skip


def first_rows(call: Callable[[], Tensor]) -> Tensor:
    return call()[:CHECKED]


def first_rows_of_each(call: Callable[[], Tensor]) -> Tensor:
    return call()[:, :CHECKED]


@dataclass(frozen=True)
class Contest:
    """One problem and its contenders.

    Attributes:
        name: operator and shape.
        dtype: dtype of features and weights.
        contenders: name -> a function that returns all rows' results; ours begin with "lc_engine".
        expected: a function that returns those of the first `CHECKED` rows in float64.
        work: work of our launch, by the work model.
        tolerance: largest allowed difference of ours from `expected`.
        checked: a function that calls a contender and returns the rows of `expected`.
        captured: whether to time calls in a CUDA graph, for calls that are bound by the host.
    """

    name: str
    dtype: torch.dtype
    contenders: dict[str, Callable[[], Tensor]]
    expected: Callable[[], Tensor]
    work: Work
    tolerance: float = 1e-5
    checked: Callable[[Callable[[], Tensor]], Tensor] = first_rows
    captured: bool = False


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.softmax(logits.float(), -1).gather(1, labels[:, None]).squeeze(1)


def linear(target: Target, sizes: Sizes) -> Iterator[Contest]:
    for dtype in (torch.bfloat16, torch.float32):
        for depth, classes in sizes.heads:
            rows = sizes.samples if classes < 10_000 else sizes.samples // 8
            backend = sizes.backend if depth == COMPILED[0] and classes <= COMPILED[1] else None
            yield _linear(target, rows, depth, classes, sizes.sub_models, dtype, backend)


def _linear(
    target: Target,
    samples: int,
    depth: int,
    classes: int,
    sub_models: int,
    dtype: torch.dtype,
    backend: str | None,
) -> Contest:
    x = torch.randn(samples, depth, dtype=dtype)
    w = (3 * torch.randn(classes, depth) / math.sqrt(depth)).to(dtype)
    y = torch.randint(0, classes, (samples,))
    t = torch.linspace(0, 3 / math.sqrt(depth), sub_models)
    omega = torch.full((sub_models,), 1 / sub_models, dtype=torch.float64)

    def step(threshold: Tensor) -> Tensor:
        return confidence(x @ torch.where(w.abs() >= threshold, w, 0).T, y)

    def loop(step: Callable[[Tensor], Tensor] = step) -> Tensor:
        return sum(map(step, t), x.new_zeros(samples, dtype=torch.float32)) / sub_models

    def expected() -> Tensor:
        total = x.new_zeros(min(CHECKED, samples), dtype=torch.float64)
        for threshold in t:
            masked = torch.where(w.abs().float() >= threshold, w, 0).double()
            p = torch.softmax(x[:CHECKED].double() @ masked.T, -1)
            total += p.gather(1, y[:CHECKED, None]).squeeze(1)
        return total / sub_models

    contenders: dict[str, Callable[[], Tensor]] = {"naive loop": loop}
    if backend is not None:
        contenders["torch.compile"] = functools.partial(loop, torch.compile(step, backend=backend))
    formulations = [False]
    if config.premask(target, dtype.itemsize, classes, depth, sub_models):
        formulations.append(True)
        stack = [torch.where(w.abs() >= threshold, w, 0).T.contiguous() for threshold in t]

        def library() -> Tensor:
            total = x.new_zeros(samples, dtype=torch.float32)
            for masked in stack:
                total += confidence(x @ masked, y)
            return total / sub_models

        contenders["pre-masked library"] = library
    for premasked in formulations:
        head = linear_kernels.prepare(w, None, t, None, None, premasked=premasked)
        name = "lc_engine pre-masked" if premasked else "lc_engine expanded"
        contenders[name] = lambda head=head: linear_kernels.linear_confidence(
            x, head, y, omega, False
        )[0]
    premasked = formulations[-1]
    tile = config.linear(target, dtype.itemsize, classes, sub_models, premasked=premasked)
    work = work_model.linear(
        samples, depth, classes, sub_models, dtype.itemsize, tile, premasked=premasked
    )
    name = f"linear_confidence N={samples} D={depth} C={classes} K={sub_models}"
    return Contest(name, dtype, contenders, expected, work)


def prototype(target: Target, sizes: Sizes) -> Iterator[Contest]:
    for dtype in (torch.bfloat16, torch.float32):
        for logit in ("inverse_distance", "cosine"):
            rows, few = sizes.samples // 8, min(8, sizes.sub_models)
            yield _prototype(target, rows, *sizes.prototypes, few, dtype, logit)


def _prototype(
    target: Target,
    samples: int,
    depth: int,
    classes: int,
    sub_models: int,
    dtype: torch.dtype,
    logit: str,
) -> Contest:
    z = torch.randn(sub_models, samples, depth, dtype=dtype)
    mu = torch.randn(classes, depth, dtype=dtype)
    y = torch.randint(0, classes, (samples,))
    omega = torch.full((sub_models,), 1 / sub_models, dtype=torch.float64)
    cosine, temperature = logit == "cosine", 0.05
    head = prototype_kernels.prepare(mu, logit, temperature)

    def logits_of(one: Tensor, mu: Tensor) -> Tensor:
        if cosine:
            unit = torch.nn.functional.normalize
            return unit(one, dim=1) @ unit(mu, dim=1).T / temperature
        # The default is the product form, which cancels the digits of small distances.
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
        )[0]

    tile = config.prototype(target, dtype.itemsize, cosine)
    work = work_model.prototype(
        samples, depth, classes, sub_models, dtype.itemsize, tile, cosine=cosine
    )
    name = f"prototype_confidence {logit} N={samples} D={depth} C={classes} K={sub_models}"
    return Contest(name, dtype, {"naive loop": loop, "lc_engine": ours}, expected, work)


def mlp(target: Target, sizes: Sizes) -> Iterator[Contest]:
    depth, classes = sizes.prototypes
    for dtype in (torch.bfloat16, torch.float32):
        for width in sizes.hidden:
            yield _mlp(target, sizes.samples, depth, width, classes, sizes.sub_models, dtype)


def _mlp(
    target: Target,
    samples: int,
    depth: int,
    width: int,
    classes: int,
    sub_models: int,
    dtype: torch.dtype,
) -> Contest:
    x = torch.randn(samples, depth, dtype=dtype)
    weights = [
        (3 * torch.randn(o, i) / math.sqrt(i)).to(dtype)
        for i, o in ((depth, width), (width, classes))
    ]
    y = torch.randint(0, classes, (samples,))
    t = torch.linspace(0, 3 / math.sqrt(depth), sub_models).expand(2, -1)
    omega = torch.full((sub_models,), 1 / sub_models, dtype=torch.float64)

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

    contenders: dict[str, Callable[[], Tensor]] = {"naive loop": loop}
    on_chip = width <= config.mlp_width(target, dtype.itemsize, plain=True)
    for name, fused in (("fused", True), ("split", False)):
        if fused and not on_chip:
            continue
        head = mlp_kernels.prepare(weights, [None, None], t, None, None, "relu", fused=fused)
        contenders[f"lc_engine {name}"] = lambda head=head: mlp_kernels.mlp_confidence(
            x, head, y, omega, False
        )[0]
    tile = config.mlp(target, dtype.itemsize)
    work = work_model.mlp(samples, depth, width, classes, sub_models, dtype.itemsize, tile)
    name = f"mlp_confidence N={samples} D={depth} H={width} C={classes} K={sub_models}"
    # Between the layers bfloat16 rounds hidden activations, as any bfloat16 network does.
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-5
    return Contest(name, dtype, contenders, expected, work, tolerance)


def masked_linear(target: Target, sizes: Sizes) -> Iterator[Contest]:
    for dtype in (torch.bfloat16, torch.float32):
        yield _masked_linear(target, *sizes.layer, min(16, sizes.sub_models), dtype)


def _masked_linear(
    target: Target, samples: int, depth: int, width: int, sub_models: int, dtype: torch.dtype
) -> Contest:
    x = torch.randn(sub_models, samples, depth, dtype=dtype)
    w = (torch.randn(width, depth) / math.sqrt(depth)).to(dtype)
    b = torch.randn(width, dtype=dtype)
    t = torch.linspace(0, 2 / math.sqrt(depth), sub_models, device="cpu")
    on_device = t.to(x.device)

    def loop() -> Tensor:
        out = x.new_empty(sub_models, samples, width)
        # Of one element, not of none: else torch compares in bfloat16.
        for k, threshold in enumerate(on_device.unsqueeze(1)):
            torch.addmm(b, x[k], torch.where(w.abs() >= threshold, w, 0).T, out=out[k])
            torch.relu_(out[k])
        return out

    def batched() -> Tensor:
        stack = torch.where(w.abs() >= on_device[:, None, None], w, 0)
        return torch.relu_(torch.baddbmm(b, x, stack.transpose(1, 2)))

    def expected() -> Tensor:
        few = x[:, :CHECKED].double()
        stack = torch.where(w.abs().float() >= on_device[:, None, None], w, 0).double()
        return torch.relu(few @ stack.transpose(1, 2) + b.double())

    contenders: dict[str, Callable[[], Tensor]] = {
        "naive loop": loop,
        "batched product": batched,
        "lc_engine": lambda: ops.masked_linear(x, w, b, t, activation="relu", backend="triton"),
    }
    tile = config.product(target, dtype.itemsize)
    work = work_model.masked_linear(samples, depth, width, sub_models, dtype.itemsize, tile)
    name = f"masked_linear N={samples} D={depth} E={width} K={sub_models}"
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-4
    return Contest(name, dtype, contenders, expected, work, tolerance, first_rows_of_each)


def token_nll(target: Target, sizes: Sizes) -> Iterator[Contest]:
    for dtype in (torch.bfloat16, torch.float32):
        few = min(4, sizes.sub_models)
        yield _token_nll(target, *sizes.vocabulary, few, dtype, sizes.backend)


def _fused_cross_entropy() -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """Return Liger's fused linear cross-entropy of tokens one by one; None if not installed."""
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError:
        return None
    loss = LigerFusedLinearCrossEntropyLoss(reduction="none")
    return lambda weight, hidden, targets: loss(weight, hidden, targets)


def _token_nll(
    target: Target,
    tokens: int,
    depth: int,
    vocabulary: int,
    sub_models: int,
    dtype: torch.dtype,
    backend: str,
) -> Contest:
    h = torch.randn(sub_models, tokens, depth, dtype=dtype)
    w = (2 * torch.randn(vocabulary, depth) / math.sqrt(depth)).to(dtype)
    y = torch.randint(0, vocabulary, (tokens,))

    def nll(one: Tensor) -> Tensor:
        return F.cross_entropy((one @ w.T).float(), y, reduction="none")

    def loop() -> Tensor:
        return torch.stack([nll(one) for one in h])

    def expected() -> Tensor:
        few, own = h[:, :CHECKED].double(), y[:CHECKED]
        wide = w.double()
        parts = [F.cross_entropy(one @ wide.T, own, reduction="none") for one in few]
        return torch.stack(parts)

    compiled = torch.compile(nll, backend=backend)
    contenders: dict[str, Callable[[], Tensor]] = {
        "naive loop": loop,
        "torch.compile": lambda: torch.stack([compiled(one) for one in h]),
        "lc_engine": lambda: ops.token_nll(h, w, y, backend="triton"),
    }
    fused = _fused_cross_entropy()
    if fused is not None:
        contenders["Liger fused linear cross-entropy"] = lambda: torch.stack(
            [fused(w, one, y) for one in h]
        )
    tile = config.vocabulary(target, dtype.itemsize, scored=False, entropy=False)
    work = work_model.token_nll(tokens, depth, vocabulary, sub_models, dtype.itemsize, tile)
    name = f"token_nll T={tokens} D={depth} V={vocabulary} K={sub_models}"
    return Contest(name, dtype, contenders, expected, work, 1e-4, first_rows_of_each)


def thresholds(target: Target, sizes: Sizes) -> Iterator[Contest]:
    for dtype in (torch.bfloat16, torch.float32):
        yield _thresholds(sizes.weights, dtype)


def _thresholds(shapes: tuple[tuple[int, int], ...], dtype: torch.dtype) -> Contest:
    weights = [torch.randn(shape, dtype=dtype) for shape in shapes]
    live = [torch.empty_like(w) for w in weights]
    bound = torch.tensor(0.7, dtype=torch.float32)

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
    contenders = {"torch loop": loop, "lc_engine": ours}
    return Contest(name, dtype, contenders, expected, work, 0.0, captured=True)
