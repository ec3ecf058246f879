"""Strategies of the literature that do not earn a place in the library: what they are measured by.

Each takes a problem and features (N, D) of its rows and returns indices into the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lc_engine.selection.problem import Problem

SAMPLES, NEIGHBORS = 4_000, 20  # of ZCore


def weighted_herding(problem: Problem, features: np.ndarray) -> np.ndarray:
    """Herding towards a mean weighted by rank, 1 for the hardest of n rows, n for the easiest."""
    hardness, kept = problem.rows.hardness("loss"), []
    for members, count in problem.members():
        rows = features[members]
        weight = np.argsort(np.argsort(-hardness[members])) + 1.0
        target, total = weight @ rows / weight.sum(), np.zeros(rows.shape[1])
        squares = np.square(rows).sum(1)
        for step in range(1, count + 1):
            best = int((squares - 2 * rows @ (step * target - total)).argmin())
            squares[best] = np.inf
            total += rows[best]
            kept.append(members[best])
    return np.array(kept)


def facility_location(problem: Problem, features: np.ndarray) -> np.ndarray:
    """Greedy facility location: each row is as near as can be to one that is kept."""
    kept = []
    for members, count in problem.members():
        rows = features[members]
        squares = np.square(rows).sum(1)
        distance = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
        near = distance.max() - distance
        covered = np.zeros(len(members), dtype=near.dtype)
        left = np.ones(len(members), dtype=bool)
        for _ in range(count):
            gain = np.maximum(near - covered, 0).sum(1)
            best = int(np.where(left, gain, -1).argmax())
            left[best] = False
            covered = np.maximum(covered, near[best])
            kept.append(members[best])
    return np.array(kept)


def zcore_scores(features: np.ndarray) -> np.ndarray:
    """ZCore (arXiv 2411.15349): rows near random points of the space, but not near one another."""
    rng = np.random.default_rng(0)
    low, middle, high = features.min(0), np.median(features, 0), features.max(0) + 1e-6
    score = 1e-6 * rng.random(len(features))
    for _ in range(SAMPLES):
        axes = rng.integers(0, features.shape[1], 2)
        point = rng.triangular(low[axes], middle[axes], high[axes])
        best = int(np.abs(features[:, axes] - point).sum(1).argmin())
        score[best] += 1
        distance = np.square(features[:, axes] - features[best, axes]).sum(1)
        near = np.argpartition(distance, NEIGHBORS)[:NEIGHBORS]
        penalty = 1 - distance[near] / max(float(distance[near].max()), 1e-12)
        score[near] -= penalty / max(float(penalty.sum()), 1e-12)
    return score


STRATEGIES = {
    "weighted herding": weighted_herding,
    "facility location": facility_location,
}
