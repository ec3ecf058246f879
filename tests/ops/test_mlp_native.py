"""What only the C++ core's mlp_confidence can get wrong: tiles, lists of weights, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from lc_engine.ops import contract
from lc_engine.ops.mlp_confidence import MLPPlan, mlp_confidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

# One layer, remainders of units and classes, several blocks of dims, a narrow layer between wide
# ones, more classes than a block holds.
WIDTHS = [(6, 5), (16, 3, 4), (1100, 40, 9), (64, 200, 33, 70), (5, 33, 2, 65), (1, 1, 1)]


def head(draw: Draw, widths: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    weights = [draw(outputs, inputs) * (2 / inputs) ** 0.5 for inputs, outputs in pairwise(widths)]
    return weights, [draw(outputs) for outputs in widths[1:]]


def quantile_thresholds(weights: list[Tensor], sub_models: int) -> list[Tensor]:
    """Thresholds that keep from all weights, a dense product, to one in fifty, lists."""
    levels = torch.linspace(0, 0.98, sub_models)
    return [torch.quantile(weight.abs().flatten(), levels) for weight in weights]


def plain_loop(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    labels: Tensor,
    thresholds: list[Tensor],
    gelu: bool,
) -> np.ndarray:
    """log p (K, N) in float64."""
    rows = []
    for bounds in zip(*thresholds, strict=True):
        hidden = x.double()
        for layer, (weight, bias, bound) in enumerate(zip(weights, biases, bounds, strict=True)):
            if layer:
                phi = (1 + torch.erf(hidden / 2**0.5)) / 2
                hidden = hidden * phi if gelu else hidden.clamp_min(0)
            hidden = hidden @ (weight * (weight.abs() >= bound)).double().T + bias.double()
        logs = hidden - hidden.logsumexp(1, keepdim=True)
        rows.append(logs[torch.arange(len(x)), labels].numpy())
    return np.stack(rows)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("sub_models", [1, 9, 50])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_matches_plain_loop(
    draw: Draw, widths: tuple[int, ...], sub_models: int, activation: str
) -> None:
    weights, biases = head(draw, widths)
    x, labels = draw(77, widths[0]), torch.arange(77) * 3 % widths[-1]
    thresholds = quantile_thresholds(weights, sub_models)
    ours = mlp_confidence(
        x,
        weights,
        biases,
        labels,
        thresholds,
        activation=activation,
        return_path=True,
        backend="native",
    )
    wanted = plain_loop(x, weights, biases, labels, thresholds, activation == "gelu")
    np.testing.assert_allclose(ours.log_probs.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("isa")
def test_ties_and_fully_masked_layers(draw: Draw) -> None:
    weights, biases = head(draw, (20, 30, 12))
    weights = [(w * 4).round() / 4 for w in weights]
    thresholds = [torch.tensor([0.0, 0.25, 0.5, 9.0]), torch.tensor([0.25, 0.25, 0.5, 9.0])]
    x, labels = draw(70, 20), torch.arange(70) % 12
    ours = mlp_confidence(
        x, weights, biases, labels, thresholds, return_path=True, backend="native"
    )
    wanted = plain_loop(x, weights, biases, labels, thresholds, False)
    np.testing.assert_allclose(ours.log_probs.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_score_depends_on_no_neighbour_and_no_thread(
    draw: Draw, set_threads: Callable[[int], None], activation: str
) -> None:
    weights, biases = head(draw, (90, 70, 40, 30))
    x, labels = draw(150, 90), torch.arange(150) % 30
    plan = MLPPlan(
        weights, biases, quantile_thresholds(weights, 9), activation=activation, backend="native"
    )
    set_threads(1)
    whole = plan(x, labels, return_path=True).log_probs
    for size in (1, 7, 64):
        parts = [
            plan(x[i : i + size], labels[i : i + size], return_path=True).log_probs
            for i in range(0, 150, size)
        ]
        assert torch.equal(torch.cat(parts, 1), whole)
    order = draw(150).argsort()
    assert torch.equal(plan(x[order], labels[order], return_path=True).log_probs, whole[:, order])
    set_threads(3)
    with ThreadPoolExecutor(3) as pool:
        for shared in pool.map(lambda _: plan(x, labels, return_path=True).log_probs, range(4)):
            assert torch.equal(shared, whole)
    x[4, 2] = float("nan")
    ours = plan(x, labels, return_path=True).log_probs
    rest = torch.arange(150) != 4
    assert bool(ours[0, 4].isnan())
    assert torch.equal(ours[:, rest], whole[:, rest])


@pytest.mark.usefixtures("isa")
def test_bfloat16(draw: Draw) -> None:
    weights, biases = ([t.bfloat16() for t in tensors] for tensors in head(draw, (50, 40, 9)))
    x, labels = draw(40, 50).bfloat16(), torch.arange(40) % 9
    thresholds = quantile_thresholds([w.float() for w in weights], 5)
    ours = mlp_confidence(
        x, weights, biases, labels, thresholds, return_path=True, backend="native"
    )
    wanted = plain_loop(x, [w.float() for w in weights], biases, labels, thresholds, False)
    np.testing.assert_allclose(ours.log_probs.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("isa")
def test_far_apart_logits(draw: Draw) -> None:
    weights, biases = head(draw, (50, 40, 9))
    x, labels = draw(40, 50) * 1e4, torch.arange(40) % 9
    thresholds = quantile_thresholds(weights, 5)
    ours = mlp_confidence(
        x, weights, biases, labels, thresholds, return_path=True, backend="native"
    )
    wanted = plain_loop(x, weights, biases, labels, thresholds, False)
    np.testing.assert_allclose(ours.log_probs.numpy(), wanted, rtol=1e-5, atol=0.1)


def test_core_checks_its_layers() -> None:
    plan = contract.native().MLPPlan
    w, v = np.ones((4, 3), np.float32), np.ones((2, 4), np.float32)
    t = np.zeros((2, 5), np.float32)
    plan([w, v], [None, None], None, t, "relu")
    for arguments, message in (
        (([w, w], [None, None], None, t, "relu"), "weights must fit one another"),
        (([w, v], [None], None, t, "relu"), "one bias per weight"),
        (([w, v], [None, w[0]], None, t, "relu"), r"biases must be \(outputs\)"),
        (([w, v], [None, None], [w], t, "relu"), "one saliency per weight"),
        (([w, v], [None, None], [w, w], t, "relu"), "saliency must be like weights"),
        (([w, v], [None, None], None, t[:1], "relu"), r"thresholds must be \(layers, sub_models\)"),
        (([w, v], [None, None], None, t, "tanh"), "activation must be relu or gelu"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(*arguments)
