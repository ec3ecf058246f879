"""Few sub-models in place of many: those whose weighted mean comes closest to the whole path's.

Gauss nodes integrate a smooth curve. A masked network's confidence in one sample is not smooth in
the capacity: neighbours differ by chance, and a mean over many averages that out. So which points
speak for the others, and with what weight, is measured on a sample of rows that are run through
all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.path.calibrate import measure
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lc_engine.scorer.scorer import Scorer

# Keeps the weights of points that say nearly the same apart: a share of each point's variance.
_RIDGE = 1e-3
# Of the error, what a point must fall below to take another's place: not for a rounding.
_BETTER = 1 - 1e-6


def represent(scorer: Scorer, data: Any, points: int = 8, samples: int = 256) -> LearningPath:
    """Choose points of a scorer's path, and weights, that give its loss with fewer sub-models.

    One point after the other is added, the one that brings the weighted mean of −log p closest to
    that over the whole path, up to a shift that all rows share; then points are exchanged for
    others as long as that brings it closer.

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
        P columns, and their weights (P,) ≥ 0 of sum 1.
    """
    centred = values - values.mean(0)
    products = centred.T @ centred / len(values)
    ridge = _RIDGE * np.trace(products) / len(weights) + np.finfo(float).tiny
    products[np.diag_indices_from(products)] += ridge
    target = products @ weights

    def mixed(trial: list[int]) -> tuple[float, NDArray[np.float64]]:
        """Give the mean squared error of the best mixture, and its weights."""
        among = products[np.ix_(trial, trial)]
        found = _mixture(among, target[trial])
        error = found @ among @ found - 2 * found @ target[trial] + weights @ target
        return float(error), found

    chosen: list[int] = []
    while len(chosen) < points:
        left = [k for k in range(len(weights)) if k not in chosen]
        chosen.append(min(left, key=lambda k: mixed([*chosen, k])[0]))
    error, found = mixed(chosen)
    place = settled = 0
    while settled < points:  # places in a row for which no other point is better
        settled += 1
        for k in range(len(weights)):
            trial = [*chosen[:place], k, *chosen[place + 1 :]]
            if k not in chosen and (other := mixed(trial))[0] < _BETTER * error:
                chosen, (error, found), settled = trial, other, 1
        place = (place + 1) % points
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
