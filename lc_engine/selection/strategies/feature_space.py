"""Strategies in feature space: easy_diverse, moderate, herding and k-center greedy."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.selection.budget import apportion
from lc_engine.selection.grouped import smallest_per_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lc_engine.selection.problem import Problem

_BATCH = 4096  # rows per k-means step, which bounds the memory


def easy_diverse(
    problem: Problem,
    rng: np.random.Generator,
    *,
    score: str,
    features: NDArray[np.float32],
    clusters: int = 16,
) -> NDArray[np.intp]:
    """Keep the easiest rows of each k-means cluster of each group.

    arXiv 2402.05356 v1, section 4: k-means on the features with k in 8..24, then the samples of
    highest learning complexity in every cluster. Clusters share the budget by their size.

    Args:
        problem: rows and budgets.
        rng: seeds k-means.
        score: "loss" or "lc".
        features: (N, D) of the rows.
        clusters: k per group, or the group's budget if that is smaller.

    Raises:
        ValueError: fewer than one cluster.
        MissingExtraError: scikit-learn is not installed.
    """
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1, got {clusters}")
    k_means = require("sklearn.cluster", "select").MiniBatchKMeans
    limits = require("threadpoolctl", "select").threadpool_limits
    hardness = problem.rows.hardness(score)

    def easiest_of_clusters(members: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        k = min(clusters, count)
        model = k_means(k, batch_size=_BATCH, n_init=1, random_state=int(rng.integers(1 << 31)))
        with limits(1, "openmp"), warnings.catch_warnings():  # one order of summation everywhere
            # Fewer distinct rows than clusters: some stay empty, and get no budget.
            warnings.filterwarnings("ignore", "Number of distinct clusters")
            cluster = model.fit_predict(features[members]).astype(np.intp)
        budget = apportion(np.bincount(cluster, minlength=k).astype(np.int64), count)
        return smallest_per_group(hardness[members], cluster, budget)

    return _per_group(problem, easiest_of_clusters)


def moderate(
    problem: Problem, rng: np.random.Generator, *, features: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Keep the rows whose distance to the group mean is closest to the median distance.

    Xia et al., "Moderate Coreset: A Universal Method of Data Selection for Real-world
    Data-efficient Deep Learning", ICLR 2023.
    """
    rows, counts = problem
    deviation = np.empty(len(rows), dtype=np.float32)
    for members, _ in problem.members():
        distance = np.linalg.norm(features[members] - features[members].mean(0), axis=1)
        deviation[members] = np.abs(distance - np.median(distance))
    return smallest_per_group(deviation, rows.groups, counts)


def herding(
    problem: Problem, rng: np.random.Generator, *, features: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Keep rows greedily so that the mean of those kept stays closest to the group mean.

    Welling, "Herding Dynamical Weights to Learn", ICML 2009, as used for exemplars by Rebuffi et
    al., "iCaRL", CVPR 2017. O(n·k·D) per group of n rows, k of them kept.
    """
    return _per_group(problem, lambda members, count: _herd(features[members], count))


def _herd(features: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Return which of n rows (n, D) herding keeps: (n,)."""
    squares = np.square(features).sum(1)
    target = features.mean(0)
    total = np.zeros_like(target)
    taken = np.zeros(len(features), dtype=bool)
    for step in range(1, count + 1):
        # ‖target − (total + x)/step‖² over x, up to factors and terms that do not depend on x.
        gap = squares - 2 * features @ (step * target - total)
        gap[taken] = np.inf
        best = int(gap.argmin())
        taken[best] = True
        total += features[best]
    return taken


def kcenter(
    problem: Problem, rng: np.random.Generator, *, features: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Keep rows greedily, each the farthest from those kept so far: k-center greedy.

    Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach",
    ICLR 2018, algorithm 1, per group, from a first row drawn at random. O(n·k·D) per group of n
    rows, k of them kept.
    """
    return _per_group(problem, lambda members, count: _k_center(features[members], count, rng))


def _k_center(
    features: NDArray[np.float32], count: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which of n rows (n, D) k-center greedy keeps: (n,)."""
    centered = features - features.mean(0)
    squares = np.square(centered).sum(1)
    nearest = np.full(len(features), np.inf, dtype=np.float32)
    taken = np.zeros(len(features), dtype=bool)
    latest = int(rng.integers(len(features)))
    for _ in range(count):
        taken[latest] = True
        distance = squares + squares[latest] - 2 * centered @ centered[latest]
        nearest = np.minimum(nearest, distance)
        latest = int(np.where(taken, -1.0, nearest).argmax())
    return taken


def _per_group(
    problem: Problem, select: Callable[[NDArray[np.intp], int], NDArray[Any]]
) -> NDArray[np.intp]:
    """Return the rows that `select(members, count)` keeps of each group's members."""
    return np.concatenate([members[select(members, k)] for members, k in problem.members()])
