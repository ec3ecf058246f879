"""Fitted paths: the few points of a path whose weighted mean comes closest to that of all.

Gauss nodes integrate a smooth curve. A masked network's confidence in one sample is not smooth in
the capacity: neighbours differ by chance, and a mean over many averages that out. So the points and
their weights are fitted to a sample of rows that was run through the whole path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Added to each point's variance, as a share of the mean variance: separates nearly equal points.
_RIDGE = 1e-3
# An exchange must reduce the error by more than rounding.
_BETTER = 1 - 1e-6


def closest_mean(
    values: NDArray[np.float64], weights: NDArray[np.float64], points: int
) -> tuple[list[int], NDArray[np.float64]]:
    """Return columns of `values`, and weights, whose weighted mean comes closest to that of all.

    Columns are added one at a time, each time the one that reduces the variance of the difference
    most (a shift shared by all rows does not count); then single columns are exchanged as long as
    that reduces it further.

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
        """Return the mean squared error of the best mixture, and its weights."""
        among = products[np.ix_(trial, trial)]
        found = _mixture(among, target[trial])
        error = found @ among @ found - 2 * found @ target[trial] + weights @ target
        return float(error), found

    chosen: list[int] = []
    while len(chosen) < points:
        left = [k for k in range(len(weights)) if k not in chosen]
        chosen.append(min(left, key=lambda k: mixed([*chosen, k])[0]))
    error, found = mixed(chosen)
    index = settled = 0
    while settled < points:  # consecutive points that no other point improves on
        settled += 1
        for k in range(len(weights)):
            trial = [*chosen[:index], k, *chosen[index + 1 :]]
            if k not in chosen and (other := mixed(trial))[0] < _BETTER * error:
                chosen, (error, found), settled = trial, other, 1
        index = (index + 1) % points
    return chosen, found / found.sum()


def _mixture(products: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the minimum of wᵀ A w − 2 wᵀ b over Σ w = 1, dropping weights that turn negative."""
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
