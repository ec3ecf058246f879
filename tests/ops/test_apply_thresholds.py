from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from lc_engine.ops import apply_thresholds, philox

if TYPE_CHECKING:
    from collections.abc import Callable

# A scalar, nothing at all, a row that ends inside a vector, several chunks of a thread's work.
SHAPES = [(3, 5), (), (0, 4), (130_001,), (8, 3, 3, 3)]
BOUNDS = [0.2, 0.0, 0.3, 0.7, 1.1]


def masked(weights: torch.Tensor, saliency: torch.Tensor, bound: float) -> torch.Tensor:
    keep = saliency >= torch.tensor(bound, dtype=saliency.dtype)
    return torch.where(keep, weights, torch.zeros_like(weights))


@pytest.mark.parametrize("kind", ["magnitude", "given", "random"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matches_where(
    draw: Callable[..., torch.Tensor], backend: str, dtype: torch.dtype, kind: str
) -> None:
    pristine = [draw(*shape).to(dtype) for shape in SHAPES]
    scores = {
        "magnitude": [weights.abs().float() for weights in pristine],
        "given": [draw(*shape) for shape in SHAPES],
        "random": [philox.uniform(shape, 2**33 + 5, i) for i, shape in enumerate(SHAPES)],
    }[kind]
    saliency = {"magnitude": None, "given": scores, "random": ("random", 2**33 + 5)}[kind]
    live = [torch.full_like(weights, 7.0) for weights in pristine]
    before = [weights.clone() for weights in pristine]
    apply_thresholds(pristine, live, BOUNDS, saliency, backend=backend)
    for weights, target, score, bound in zip(pristine, live, scores, BOUNDS, strict=True):
        assert torch.equal(target, masked(weights, score, bound))
    assert all(torch.equal(a, b) for a, b in zip(pristine, before, strict=True))


def test_one_threshold_for_all_tensors(draw: Callable[..., torch.Tensor], backend: str) -> None:
    pristine = [draw(40, 3), draw(9)]
    live = [torch.empty_like(weights) for weights in pristine]
    apply_thresholds(pristine, live, 0.5, backend=backend)
    assert all(
        torch.equal(target, masked(weights, weights.abs(), 0.5))
        for weights, target in zip(pristine, live, strict=True)
    )


def test_ties_stay_and_nan_goes(backend: str) -> None:
    pristine = torch.tensor([0.5, -0.5, 0.25, float("nan"), 0.0, float("inf")])
    live = torch.empty_like(pristine)
    apply_thresholds([pristine], [live], 0.5, backend=backend)
    assert live.tolist() == [0.5, -0.5, 0.0, 0.0, 0.0, float("inf")]
    apply_thresholds([pristine], [live], 0.0, backend=backend)
    assert torch.equal(live, pristine.nan_to_num(0.0, posinf=float("inf")))


@pytest.mark.usefixtures("isa")
def test_in_place_and_threads(
    draw: Callable[..., torch.Tensor], set_threads: Callable[[int], None]
) -> None:
    weights = draw(300_000)
    wanted = masked(weights, philox.uniform((300_000,), 4), 0.5)
    for threads in (1, 3):
        set_threads(threads)
        live = weights.clone()
        apply_thresholds([live], [live], 0.5, ("random", 4), backend="native")
        assert torch.equal(live, wanted)


def test_empty_list(backend: str) -> None:
    apply_thresholds([], [], 0.5, backend=backend)


def test_opcheck(draw: Callable[..., torch.Tensor]) -> None:
    weights = [draw(5, 3), draw(7)]
    live = [torch.empty_like(w) for w in weights]
    torch.library.opcheck(
        torch.ops.lc_engine.apply_thresholds.default, (weights, live, [0.5, 0.1], [], None, "auto")
    )


W = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([W], [], 0.5), "live must hold 1"),
        (([W], [torch.ones(3, 4)], 0.5), r"live\[0\] must have shape \(4, 3\)"),
        (([W], [W.double()], 0.5), r"live\[0\] must be contiguous torch.float32"),
        (([W.T], [torch.ones(3, 4)], 0.5), r"live\[0\] must be contiguous"),
        (([W], [W.clone()], [0.5, 0.1]), "threshold must be one number or 1"),
        (([W], [W.clone()], 0.5, [W, W]), "saliency must hold 1 tensors, got 2"),
        (([W], [W.clone()], 0.5, [torch.ones(4)]), r"saliency\[0\] must have shape \(4, 3\)"),
    ],
)
def test_bad_arguments(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_thresholds(*arguments)  # type: ignore[arg-type]
