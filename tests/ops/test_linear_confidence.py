from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.native import ISAS, products_on_amx
from lc_engine.ops import LinearPlan, choices, linear_confidence, philox, processor

Draw = Callable[..., Tensor]

# (samples, dims, classes, sub-models): one of each, odd, whole vectors, several blocks of dims,
# several groups of classes, more sub-models than weights in a shell.
SHAPES = [
    (1, 1, 1, 1),
    (33, 7, 5, 3),
    (64, 16, 4, 8),
    (50, 300, 37, 12),
    (17, 1100, 3, 50),
    (20, 64, 700, 4),
    (9, 5, 2, 40),
]


def plain_loop(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor | None,
    thresholds: Tensor,
    saliency: Tensor | None = None,
) -> np.ndarray:
    """log p (K, N) in float64, one sub-model after the other."""
    x, w = features.double().numpy(), weight.double().numpy()
    rows = []
    for k, threshold in enumerate(thresholds.double().numpy()):
        scores = np.abs(w) if saliency is None else saliency.double().numpy()
        kept = np.where((scores[k] if scores.ndim == 3 else scores) >= threshold, w, 0.0)
        logits = x @ kept.T + (0.0 if bias is None else bias.double().numpy())
        top = logits.max(1, keepdims=True)
        logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
        picked = logs.max(1) if labels is None else logs[np.arange(len(x)), labels.numpy()]
        rows.append(picked)
    return np.stack(rows)


def quantile_thresholds(scores: Tensor, sub_models: int) -> Tensor:
    """Ascending thresholds that keep from all weights to one in fifty."""
    levels = torch.linspace(0, 0.98, sub_models, dtype=scores.dtype)
    return torch.quantile(scores.flatten()[:100_000], levels)


def head(draw: Draw, shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    samples, dims, classes, _ = shape
    weight = draw(classes, dims) * 3 / dims**0.5
    return draw(samples, dims), weight, draw(classes), torch.arange(samples) * 7 % classes


def close(ours: Tensor, wanted: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours.double().numpy(), wanted, rtol=tolerance, atol=tolerance)


def of_bfloat16(
    backend: str, x: Tensor, weight: Tensor, thresholds: Tensor, saliency: Tensor | None = None
) -> float:
    """The tolerance of log p in bfloat16: two logits, each rounded to 8 bits by products on AMX."""
    if backend != "auto":
        return 1e-5
    scores = weight.float().abs() if saliency is None else saliency
    kept = scores >= thresholds[:, None, None]
    logits = torch.einsum("nd,kcd->knc", x.double(), torch.where(kept, weight.double(), 0))
    return 2 * 2**-8 * float(logits.abs().max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "largest"])
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no_bias"])
def test_matches_plain_loop(
    draw: Draw, backend: str, shape: tuple[int, int, int, int], labelled: bool, biased: bool
) -> None:
    x, weight, bias, labels = head(draw, shape)
    thresholds = quantile_thresholds(weight.abs(), shape[3])
    omega = draw(shape[3]).abs() + 0.1
    scores = linear_confidence(
        x,
        weight,
        bias if biased else None,
        labels if labelled else None,
        thresholds,
        path_weights=omega,
        return_path=True,
        backend=backend,
    )
    wanted = plain_loop(
        x, weight, bias if biased else None, labels if labelled else None, thresholds
    )
    weights = omega.double().numpy()[:, None]
    close(scores.log_probs, wanted)
    close(scores.lc, (weights * np.exp(wanted)).sum(0))
    close(scores.loss, -(weights * wanted).sum(0))
    assert scores.lc.dtype == scores.loss.dtype == torch.float32


@pytest.mark.parametrize("shape", SHAPES[1:5], ids=str)
@pytest.mark.parametrize("kind", ["given", "random", "not_nested"])
def test_saliencies(draw: Draw, backend: str, shape: tuple[int, int, int, int], kind: str) -> None:
    x, weight, bias, labels = head(draw, shape)
    scores = {
        "given": draw(*weight.shape),
        "random": philox.uniform(tuple(weight.shape), 11),
        "not_nested": draw(shape[3], *weight.shape),
    }[kind]
    thresholds = quantile_thresholds(scores, shape[3])
    plan = LinearPlan(
        weight,
        bias,
        thresholds,
        saliency=("random", 11) if kind == "random" else scores,
        backend=backend,
    )
    assert plan.nested == (kind != "not_nested")
    ours = plan(x, labels, return_path=True).log_probs
    close(ours, plain_loop(x, weight, bias, labels, thresholds, scores))


def test_float64_reference_is_exact(draw: Draw) -> None:
    x, weight, bias, labels = (
        t.double() if t.is_floating_point() else t for t in head(draw, (20, 30, 6, 4))
    )
    thresholds = quantile_thresholds(weight.abs(), 4)
    ours = linear_confidence(x, weight, bias, labels, thresholds, return_path=True)
    assert ours.lc.dtype == torch.float64
    close(ours.log_probs, plain_loop(x, weight, bias, labels, thresholds), 1e-12)


# The last: more dims than a window of the pair form can name.
@pytest.mark.parametrize("shape", [*SHAPES, (40, 70, 9, 5), (5, 8300, 3, 4)], ids=str)
@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "largest"])
def test_bfloat16(
    draw: Draw, backend: str, shape: tuple[int, int, int, int], labelled: bool
) -> None:
    x, weight, bias, labels = head(draw, shape)
    x, weight, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    thresholds = quantile_thresholds(weight.float().abs(), shape[3])
    given = labels if labelled else None
    ours = linear_confidence(x, weight, bias, given, thresholds, return_path=True, backend=backend)
    wanted = plain_loop(x, weight, bias, given, thresholds)
    close(ours.log_probs, wanted, of_bfloat16(backend, x, weight, thresholds))


@pytest.mark.parametrize("narrow", ["features", "weight"])
def test_one_side_in_bfloat16(draw: Draw, backend: str, narrow: str) -> None:
    x, weight, bias, labels = head(draw, (40, 70, 9, 5))
    thresholds = quantile_thresholds(weight.abs(), 5)
    x = x.bfloat16() if narrow == "features" else x
    weight = weight.bfloat16() if narrow == "weight" else weight
    ours = linear_confidence(x, weight, bias, labels, thresholds, return_path=True, backend=backend)
    close(ours.log_probs, plain_loop(x, weight, bias, labels, thresholds))


@pytest.mark.parametrize("kind", ["given", "not_nested"])
def test_bfloat16_with_saliencies(draw: Draw, backend: str, kind: str) -> None:
    x, weight, bias, labels = head(draw, (50, 300, 37, 12))
    x, weight, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    scores = draw(*weight.shape) if kind == "given" else draw(12, *weight.shape)
    thresholds = quantile_thresholds(scores, 12)
    plan = LinearPlan(weight, bias, thresholds, saliency=scores, backend=backend)
    ours = plan(x, labels, return_path=True).log_probs
    wanted = plain_loop(x, weight, bias, labels, thresholds, scores)
    close(ours, wanted, of_bfloat16(backend, x, weight, thresholds, scores))


def test_ties_at_a_threshold_stay(draw: Draw, backend: str) -> None:
    weight = (draw(11, 24) * 4).round() / 4
    thresholds = torch.tensor([0.0, 0.25, 0.25, 0.5, 1.0])
    x, labels = draw(19, 24), torch.arange(19) % 11
    ours = linear_confidence(x, weight, None, labels, thresholds, return_path=True, backend=backend)
    close(ours.log_probs, plain_loop(x, weight, None, labels, thresholds))
    assert torch.equal(ours.log_probs[1], ours.log_probs[2])


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_fully_masked_head_knows_nothing(draw: Draw, backend: str, classes: int) -> None:
    thresholds = torch.tensor([float("inf"), float("inf")])
    ours = linear_confidence(
        draw(7, 12), draw(classes, 12), None, None, thresholds, return_path=True, backend=backend
    )
    wanted = torch.full((2, 7), -np.log(classes), dtype=torch.float32)
    torch.testing.assert_close(ours.log_probs, wanted, rtol=1.3e-7, atol=0)


@pytest.mark.parametrize("size", [30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_far_apart_logits(draw: Draw, backend: str, size: float, dtype: torch.dtype) -> None:
    x, weight, bias, labels = head(draw, (40, 50, 12, 6))
    x, weight, bias = x.to(dtype), (weight * size).to(dtype), bias.to(dtype)
    thresholds = quantile_thresholds(weight.abs().float(), 6)
    ours = linear_confidence(
        x, weight, bias, labels, thresholds, return_path=True, backend=backend
    ).log_probs
    wanted = plain_loop(x, weight, bias, labels, thresholds)
    # A log p near 0 is a difference of logits: its error is theirs.
    rough = of_bfloat16(backend, x, weight, thresholds) if dtype == torch.bfloat16 else 0
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=2e-6, atol=max(size * 5e-6, rough))
    assert bool((ours <= 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_score_does_not_depend_on_the_batch(draw: Draw, backend: str, dtype: torch.dtype) -> None:
    x, weight, bias, labels = head(draw, (150, 40, 30, 9))
    weight[:, :3] *= 200  # some samples take the careful way
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    if backend == "reference":
        pytest.skip("plain torch sums differently for other sizes of a product")
    plan = LinearPlan(weight, bias, quantile_thresholds(weight.abs().float(), 9), backend=backend)
    whole = plan(x, labels, return_path=True).log_probs
    for size in (1, 7, 64):
        parts = [
            plan(x[i : i + size], labels[i : i + size], return_path=True).log_probs
            for i in range(0, 150, size)
        ]
        assert torch.equal(torch.cat(parts, 1), whole)
    order = draw(150).argsort()
    assert torch.equal(plan(x[order], labels[order], return_path=True).log_probs, whole[:, order])


@pytest.mark.usefixtures("isa")
def test_threads_do_not_change_a_score(draw: Draw, set_threads: Callable[[int], None]) -> None:
    x, weight, bias, labels = head(draw, (500, 40, 30, 9))
    plan = LinearPlan(weight, bias, quantile_thresholds(weight.abs(), 9), backend="native")
    set_threads(1)
    one = plan(x, labels, return_path=True).log_probs
    set_threads(3)
    assert torch.equal(plan(x, labels, return_path=True).log_probs, one)
    with ThreadPoolExecutor(3) as pool:
        for shared in pool.map(lambda _: plan(x, labels, return_path=True).log_probs, range(6)):
            assert torch.equal(shared, one)


def test_non_contiguous_input(draw: Draw, backend: str) -> None:
    x, weight, bias, labels = head(draw, (21, 18, 6, 3))
    thresholds = quantile_thresholds(weight.abs(), 3)
    ours = linear_confidence(
        x.T.contiguous().T,
        weight.T.contiguous().T,
        bias.repeat_interleave(2)[::2],
        labels.repeat_interleave(2)[::2],
        thresholds.repeat_interleave(2)[::2],
        backend=backend,
    )
    assert torch.equal(
        ours.lc, linear_confidence(x, weight, bias, labels, thresholds, backend=backend).lc
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_stays_in_its_row(draw: Draw, backend: str, dtype: torch.dtype) -> None:
    x, weight, bias, labels = head(draw, (30, 18, 6, 3))
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    plan = LinearPlan(weight, bias, quantile_thresholds(weight.abs().float(), 3), backend=backend)
    clean = plan(x, labels).lc
    x[4, 2] = float("nan")
    ours = plan(x, labels).lc
    assert bool(ours[4].isnan())
    rest = torch.arange(30) != 4
    torch.testing.assert_close(ours[rest], clean[rest])


def test_empty_batch(draw: Draw, backend: str) -> None:
    scores = linear_confidence(
        draw(0, 4),
        draw(3, 4),
        None,
        torch.zeros(0, dtype=torch.int64),
        torch.tensor([0.0, 1.0]),
        return_path=True,
        backend=backend,
    )
    assert (scores.lc.shape, scores.loss.shape, scores.log_probs.shape) == ((0,), (0,), (2, 0))


def test_plan_keeps_its_own_copy(draw: Draw, backend: str) -> None:
    x, weight, bias, labels = head(draw, (8, 10, 4, 3))
    plan = LinearPlan(weight, bias, quantile_thresholds(weight.abs(), 3), backend=backend)
    before = plan(x, labels)
    weight.zero_()
    bias.zero_()
    after = plan(x, labels)
    assert torch.equal(before.lc, after.lc)
    assert after.log_probs is None


def test_opcheck(draw: Draw) -> None:
    x, weight, bias, labels = head(draw, (6, 5, 4, 3))
    thresholds = quantile_thresholds(weight.abs(), 3)
    operator = torch.ops.lc_engine.linear_confidence.default
    for path in (True, False):
        torch.library.opcheck(
            operator, (x, weight, bias, labels, thresholds, None, None, None, path, "auto")
        )


def test_compiled_gives_the_same_numbers(draw: Draw) -> None:
    x, weight, bias, labels = head(draw, (6, 5, 4, 3))
    thresholds = quantile_thresholds(weight.abs(), 3)

    def score(features: Tensor) -> Tensor:
        return linear_confidence(features * 2, weight, bias, labels, thresholds).lc + 1

    compiled = torch.compile(score, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), score(x))


X, W, B = torch.ones(4, 3), torch.ones(2, 3), torch.zeros(2)
Y, T = torch.tensor([0, 1, 0, 1]), torch.tensor([0.0, 0.5])
NAN = float("nan")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": torch.ones(4, 2)}, r"features must have shape \(N, 3\), got \(4, 2\)"),
        ({"features": [1.0]}, "features must be a tensor, got list"),
        ({"features": X.long()}, "features must be a floating-point tensor"),
        ({"features": X.double()}, "features is float64 but weight is torch.float32"),
        ({"weight": torch.ones(3)}, r"weight must have shape \(C, D\)"),
        ({"weight": torch.ones(0, 3), "bias": None, "labels": None}, "at least one class"),
        ({"bias": torch.zeros(3)}, r"bias must have shape \(2\)"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, r"labels\[2\] is 2, but must lie in \[0, 2\)"),
        ({"labels": torch.tensor([0, 1, 0, -1])}, r"labels\[3\] is -1"),
        ({"labels": Y[:3]}, r"labels must have shape \(4,\)"),
        ({"labels": Y.float()}, "labels must be an integer tensor"),
        ({"thresholds": torch.tensor([0.5, 0.0])}, "thresholds must be ascending"),
        ({"thresholds": torch.tensor([0.5, NAN])}, "thresholds must not hold NaN"),
        ({"thresholds": torch.tensor(0.5)}, r"thresholds must have shape \(K\)"),
        ({"thresholds": torch.zeros(0)}, "at least one sub-model"),
        ({"path_weights": torch.ones(3)}, r"path_weights must have shape \(2\)"),
        ({"saliency": torch.ones(3, 2)}, r"saliency must have shape \(2, 3\)"),
        ({"saliency": torch.ones(3, 2, 3)}, r"saliency must have shape \(2, 2, 3\)"),
        ({"saliency": ("uniform", 3)}, "saliency must be None, a tensor or"),
        ({"backend": "gpu"}, "backend must be one of"),
        ({"backend": "triton"}, "backend='triton' takes"),
    ],
)
def test_bad_arguments(changed: dict[str, object], message: str) -> None:
    arguments = {"features": X, "weight": W, "bias": B, "labels": Y, "thresholds": T}
    with pytest.raises(ValueError, match=message):
        linear_confidence(**{**arguments, **changed})


@pytest.mark.parametrize("sub_models", [8, 50])
def test_few_sub_models_are_dense_products_on_amx(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, sub_models: int
) -> None:
    weight = draw(100, 768)
    thresholds = quantile_thresholds(weight.abs(), sub_models)
    narrow = weight.bfloat16()
    assert not LinearPlan(narrow, None, thresholds)._dense or processor.cpu_features().amx_bf16
    found = processor.cpu_features()._replace(amx_bf16=True)
    monkeypatch.setattr(choices, "cpu_features", lambda: found)
    assert len(LinearPlan(narrow, None, thresholds)._dense) == (8 if sub_models == 8 else 0)
    assert not LinearPlan(weight, None, thresholds)._dense, "float32"
    assert not LinearPlan(narrow, None, thresholds, backend="native")._dense
    sparse = quantile_thresholds(weight.abs(), 50)[-sub_models:]
    assert LinearPlan(narrow[:, :60], None, thresholds)._dense == [], "few dims"
    if sub_models == 8:
        assert LinearPlan(narrow, None, sparse)._dense == [], "few weights are fast in shells"


@pytest.mark.skipif(not ISAS, reason="the C++ core was not built")
def test_a_dense_plan_takes_float32_features_as_shells(draw: Draw) -> None:
    x, weight, bias, labels = head(draw, (40, 70, 9, 5))
    thresholds = quantile_thresholds(weight.abs(), 5)
    with products_on_amx():
        plan = LinearPlan(weight.bfloat16(), bias.bfloat16(), thresholds)
    assert plan._dense
    ours = plan(x, labels, return_path=True).log_probs
    wanted = plain_loop(x, weight.bfloat16(), bias.bfloat16(), labels, thresholds)
    close(ours, wanted)
