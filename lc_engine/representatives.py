"""Few sub-models in place of many: those whose weighted mean comes closest to the whole path's.

Gauss nodes integrate a smooth curve. A masked network's confidence in one sample is not smooth in
the capacity: neighbours differ by chance, and a mean over many averages that out. So which points
speak for the others, and with what weight, is measured on a sample of rows that are run through
all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.calibration import measure
from lc_engine.path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lc_engine.scorer import Scorer

# Keeps the weights of points that say nearly the same apart: a share of each point's variance.
_RIDGE = 1e-4


def represent(scorer: Scorer, data: Any, points: int = 8, samples: int = 256) -> LearningPath:
    """Choose points of a scorer's path, and weights, that give its loss with fewer sub-models.

    Greedy: one point after the other is added, the one that brings the weighted mean of −log p
    closest to that over the whole path, up to a shift that all rows share.

    Args:
        scorer: with the path that is wanted; it is not changed. Where its head learns from the
            data and has not, it learns from the sample here.
        data: what `open_source` takes.
        points: how many, 1 to K.
        samples: rows that are run through the whole path, evenly spaced.

    Returns:
        A path of `points` of the scorer's capacities, with weights ≥ 0 that sum to 1.

    Raises:
        ValueError: exits, another number of points, or no row that can be scored.
    """
    path = scorer.path
    if not 1 <= points <= len(path):
        raise ValueError(f"points must lie in [1, {len(path)}], got {points}")
    losses = -measure(scorer, data, samples).T
    chosen, weights = closest_mean(losses, np.asarray(path.weights), points)
    pairs = sorted(zip(chosen, weights, strict=True))
    return LearningPath(
        f"{path.name}~fit{points}",
        tuple(path.capacities[k] for k, _ in pairs),
        tuple(float(weight) for _, weight in pairs),
    )


def closest_mean(
    values: NDArray[np.float64], weights: NDArray[np.float64], points: int
) -> tuple[list[int], NDArray[np.float64]]:
    """Choose columns of `values` whose weighted mean comes closest to that of all.

    Args:
        values: (M, K) a number per row and point.
        weights: (K,) of all points.
        points: P, how many to choose.

    Returns:
        P columns in the order of choice, and their weights (P,) ≥ 0 of sum 1.
    """
    centred = values - values.mean(0)
    products = centred.T @ centred / len(values)
    ridge = _RIDGE * np.trace(products) / len(weights) + np.finfo(float).tiny
    products[np.diag_indices_from(products)] += ridge
    target = products @ weights
    chosen: list[int] = []
    found = np.empty(0)
    while len(chosen) < points:
        best = np.inf
        for k in set(range(len(weights))) - set(chosen):
            trial = [*chosen, k]
            mixed = _mixture(products[np.ix_(trial, trial)], target[trial])
            error = mixed @ products[np.ix_(trial, trial)] @ mixed - 2 * mixed @ target[trial]
            if error < best:
                best, following, found = error, k, mixed
        chosen.append(following)
    return chosen, found / found.sum()


def _mixture(products: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimise wᵀ A w − 2 wᵀ b over w ≥ 0 with Σ w = 1; a weight that turns negative is dropped."""
    weights = np.zeros(len(target))
    free: Sequence[int] = range(len(target))
    while True:
        size = len(free)
        system = np.ones((size + 1, size + 1))
        system[:size, :size], system[size, size] = products[np.ix_(free, free)], 0.0
        solved = np.linalg.solve(system, np.append(target[list(free)], 1.0))[:size]
        if (solved >= 0).all():
            weights[list(free)] = solved
            return weights
        free = [k for k, weight in zip(free, solved, strict=True) if weight > 0]
