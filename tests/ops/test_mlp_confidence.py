from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from lc_engine.ops import contract, linear_confidence, philox
from lc_engine.ops.mlp_confidence import MLPPlan, mlp_confidence

Draw = Callable[..., Tensor]
WIDTHS = [(1, 1), (7, 5, 3), (20, 33, 4), (16, 9, 12, 6), (5, 2, 1)]

# A build of the C++ core may lack this operator; the plan says so once, which is tested below.


def plain_loop(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor | None],
    labels: Tensor | None,
    thresholds: list[Tensor],
    scores: list[Tensor],
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """log p (K, N) in float64, written with masks and nothing of ours."""
    rows = []
    for k in range(len(thresholds[0])):
        hidden = x.double()
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            mask = (scores[layer] >= thresholds[layer][k]).double()
            hidden = hidden @ (weight.double() * mask).T
            hidden = hidden if bias is None else hidden + bias.double()
            if layer < len(weights) - 1:
                hidden = activation(hidden)
        log_p = hidden - hidden.logsumexp(1, keepdim=True)
        if labels is None:
            rows.append(log_p.max(1).values)
        else:
            rows.append(log_p[torch.arange(len(x)), labels])
    return torch.stack(rows)


def relu(x: Tensor) -> Tensor:
    return x.clamp_min(0)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def make_head(
    draw: Draw, widths: tuple[int, ...], dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor | None]]:
    pairs = list(itertools.pairwise(widths))
    weights = [(draw(o, i) / i**0.5).to(dtype) for i, o in pairs]
    biases: list[Tensor | None] = [draw(o).to(dtype) for _, o in pairs]
    biases[0] = None
    return weights, biases


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", ["magnitude", "given", "random"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_matches_a_plain_loop(
    draw: Draw, widths: tuple[int, ...], kind: str, dtype: torch.dtype, activation: str
) -> None:
    weights, biases = make_head(draw, widths, dtype)
    x = draw(11, widths[0]).to(dtype)
    labels = torch.arange(11) % widths[-1]
    layers = len(weights)
    thresholds = [torch.tensor([0.0, 0.1, 0.4]) + 0.05 * layer for layer in range(layers)]
    scores = {
        "magnitude": [w.abs().double() for w in weights],
        "given": [draw(*w.shape).abs() for w in weights],
        "random": [philox.uniform(tuple(w.shape), 5, layer) for layer, w in enumerate(weights)],
    }[kind]
    saliency = {"magnitude": None, "given": scores, "random": ("random", 5)}[kind]
    omega = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    wide = [t.to(contract.compute_dtype(dtype)).double() for t in thresholds]
    rounded = [s.to(contract.compute_dtype(dtype)).double() for s in scores]
    expected = plain_loop(
        x, weights, biases, labels, wide, rounded, relu if activation == "relu" else gelu
    )
    got = mlp_confidence(
        x, weights, biases, labels, thresholds,
        activation=activation, path_weights=omega, saliency=saliency, return_path=True,
    )  # fmt: skip
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert got.lc.dtype == contract.compute_dtype(dtype)
    for ours, truth in zip(
        got,
        ((omega[:, None] * expected.exp()).sum(0), -(omega[:, None] * expected).sum(0), expected),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), truth, atol=tolerance, rtol=tolerance)


@pytest.mark.usefixtures("isa")
def test_one_layer_is_the_linear_operator(draw: Draw) -> None:
    x, weight, bias = draw(9, 6), draw(4, 6), draw(4)
    labels, thresholds = torch.arange(9) % 4, torch.tensor([0.0, 0.5, 1.0])
    ours = mlp_confidence(x, [weight], [bias], labels, thresholds)
    theirs = linear_confidence(x, weight, bias, labels, thresholds, backend="reference")
    torch.testing.assert_close(ours.lc, theirs.lc)
    torch.testing.assert_close(ours.loss, theirs.loss)
    assert ours.log_probs is None


@pytest.mark.usefixtures("isa")
def test_scopes_without_labels_and_without_samples(draw: Draw) -> None:
    weights, biases = make_head(draw, (6, 5, 3), torch.float32)
    thresholds = torch.tensor([0.1, 0.3])
    plan = MLPPlan(weights, biases, thresholds)
    each = MLPPlan(weights, biases, torch.stack([thresholds] * 2))
    x = draw(8, 6)
    assert torch.equal(plan(x).lc, each(x).lc)
    assert bool((plan(x).lc >= plan(x, torch.zeros(8, dtype=torch.long)).lc).all())
    empty = plan(x[:0], torch.zeros(0, dtype=torch.long), return_path=True)
    assert [tuple(t.shape) for t in empty] == [(0,), (0,), (2, 0)]


@pytest.mark.usefixtures("isa")
def test_a_plan_keeps_its_own_copy(draw: Draw) -> None:
    weights, biases = make_head(draw, (6, 5, 3), torch.float32)
    plan = MLPPlan(weights, biases, torch.tensor([0.1]))
    x = draw(8, 6)
    before = plan(x).lc
    for weight in weights:
        weight.zero_()
    assert torch.equal(plan(x).lc, before)


def test_opcheck_and_compile(draw: Draw) -> None:
    weights, biases = make_head(draw, (6, 5, 3), torch.float32)
    x, labels, thresholds = draw(8, 6), torch.arange(8) % 3, torch.tensor([0.1, 0.3])
    torch.library.opcheck(
        torch.ops.lc_engine.mlp_confidence,
        (x, weights, biases, labels, [thresholds] * 2, "gelu", None, [], None, True, "reference"),
    )

    @torch.compile(backend="aot_eager", fullgraph=True)
    def score(x: Tensor) -> Tensor:
        return mlp_confidence(x, weights, biases, labels, thresholds, backend="reference").lc * 2

    plain = mlp_confidence(x, weights, biases, labels, thresholds, backend="reference").lc * 2
    assert torch.equal(score(x), plain)


def test_a_core_with_the_operator_is_handed_the_plan(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    class Recorder:
        def __init__(self, *arguments: object) -> None:
            given["plan"] = arguments

        def run(self, features: object, labels: object, out: object, threads: int) -> None:
            out.fill(-1.0)  # type: ignore[attr-defined]

    monkeypatch.setattr(contract, "native", lambda: SimpleNamespace(MLPPlan=Recorder))
    weights, biases = make_head(draw, (6, 5, 3), torch.float32)
    plan = MLPPlan(weights, biases, torch.tensor([0.1, 0.2]), backend="native")
    scores = plan(draw(4, 6), torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(scores.loss, torch.ones(4))
    w, b, s, t, activation = given["plan"]  # type: ignore[misc]
    assert [one.shape for one in w] == [(5, 6), (3, 5)]
    assert b[0] is None
    assert b[1].shape == (3,)
    assert (s, t.shape, activation) == (None, (2, 2), "relu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": []}, "at least one layer"),
        ({"weights": [torch.zeros(5, 6), torch.zeros(3, 4)]}, r"weights\[1\] must have shape"),
        ({"weights": [torch.zeros(5, 6), torch.zeros(3, 5).double()]}, r"weights\[1\] is"),
        ({"weights": [torch.zeros(0, 6), torch.zeros(3, 0)]}, r"weights\[0\] must have"),
        ({"biases": [None]}, "biases must hold 2"),
        ({"biases": [torch.zeros(4), None]}, r"biases\[0\] must have shape"),
        ({"thresholds": [torch.zeros(2)]}, "thresholds must be"),
        ({"thresholds": [torch.zeros(2), torch.zeros(3)]}, r"thresholds\[1\] has 3"),
        ({"thresholds": torch.tensor([0.2, 0.1])}, "ascending"),
        ({"activation": "tanh"}, "activation must be one of"),
        ({"saliency": [torch.zeros(5, 6)]}, "saliency must hold 2"),
        ({"saliency": [torch.zeros(5, 6), torch.zeros(3, 6)]}, r"saliency\[1\]"),
        ({"saliency": ("uniform", 3)}, "saliency must be None"),
        ({"labels": torch.tensor([0, 1, 2, 3])}, r"labels\[3\] is 3"),
        ({"features": torch.zeros(4, 7)}, "features must have shape"),
        ({"features": torch.zeros(4, 6).double()}, "give both in one dtype"),
        ({"path_weights": torch.zeros(3)}, "path_weights"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "features": torch.zeros(4, 6),
        "weights": [torch.zeros(5, 6), torch.zeros(3, 5)],
        "biases": [None, None],
        "labels": torch.tensor([0, 1, 2, 0]),
        "thresholds": torch.tensor([0.1, 0.2]),
    }
    with pytest.raises(ValueError, match=message):
        mlp_confidence(**(arguments | change))  # type: ignore[arg-type]
