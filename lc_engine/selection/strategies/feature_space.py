"""Strategies that look at where rows lie: easy_diverse, moderate, herding and k-center greedy."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from lc_engine._util.extras import require
from lc_engine.selection import grouped as draw
from lc_engine.selection.budget import apportion
from lc_engine.selection.strategies.flexrand import hardness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lc_engine.selection.eligible import Rows

_BATCH = 4096  # rows per k-means step: flat memory, however many rows there are


def easy_diverse(
    rows: Rows,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    score: str,
    features: NDArray[np.float32],
    clusters: int = 16,
) -> NDArray[np.intp]:
    """Keep the easiest rows of each cluster of each group.

    arXiv 2402.05356 v1, section 4: k-means on the features with k in 8..24, then the samples of
    highest learning complexity in every cluster. Budgets go to clusters by their size.

    Args:
        rows: the rows to choose from.
        counts: (G,) rows to keep of each group.
        rng: seeds k-means.
        score: "loss" or "lc".
        features: (N, D) of the rows.
        clusters: k per group, or the group's budget where that is smaller.

    Raises:
        ValueError: fewer than one cluster.
        ImportError: scikit-learn is not there.
    """
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1, got {clusters}")
    k_means = require("sklearn.cluster", "select").MiniBatchKMeans
    limits = require("threadpoolctl", "select").threadpool_limits
    hard_first = hardness(rows, score)
    chosen = []
    for members, count in _members(rows, counts):
        k = min(clusters, count)
        with limits(1, "openmp"):  # one order of summation: the same clusters on any machine size
            model = k_means(
                k,
                batch_size=_BATCH,
                n_init=1,
                random_state=int(rng.integers(1 << 31)),
            )
            with warnings.catch_warnings():
                # Fewer distinct rows than clusters: some stay empty, and `apportion` skips them.
                warnings.filterwarnings("ignore", "Number of distinct clusters")
                cluster = model.fit_predict(features[members])
        budget = apportion(np.bincount(cluster, minlength=k).astype(np.int64), count)
        chosen.append(members[draw.first(hard_first[members], cluster.astype(np.intp), budget)])
    return np.concatenate(chosen)


def moderate(
    rows: Rows,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    features: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Keep the rows whose distance to their group's mean is nearest to the median distance.

    Xia et al., "Moderate Coreset: A Universal Method of Data Selection for Real-world
    Data-efficient Deep Learning", ICLR 2023.
    """
    key = np.empty(len(rows), dtype=np.float32)
    for members, _ in _members(rows, counts):
        group = features[members]
        distance = np.linalg.norm(group - group.mean(0), axis=1)
        key[members] = np.abs(distance - np.median(distance))
    return draw.first(key, rows.groups, counts)


def herding(
    rows: Rows,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    features: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Keep rows one by one so that the mean of those kept stays nearest to the group's mean.

    Welling, "Herding Dynamical Weights to Learn", ICML 2009, as used for exemplars by Rebuffi et
    al., "iCaRL", CVPR 2017. O(n·k·D) per group of n rows, k of them kept.
    """
    chosen = []
    for members, count in _members(rows, counts):
        group = features[members]
        squares = np.square(group).sum(1)
        target = group.mean(0)
        total = np.zeros_like(target)
        taken = np.zeros(len(members), dtype=bool)
        for step in range(1, count + 1):
            # ‖target − (total + x)/step‖² over x, without what does not depend on x.
            gap = squares - 2 * group @ (step * target - total)
            gap[taken] = np.inf
            best = int(gap.argmin())
            taken[best] = True
            total += group[best]
        chosen.append(members[taken])
    return np.concatenate(chosen)


def kcenter(
    rows: Rows,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    features: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Keep rows one by one, each the farthest from those kept so far: k-center greedy.

    Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach",
    ICLR 2018, algorithm 1, per group, from a first row drawn at random. O(n·k·D).
    """
    chosen = []
    for members, count in _members(rows, counts):
        group = features[members] - features[members].mean(0)
        squares = np.square(group).sum(1)
        nearest = np.full(len(members), np.inf, dtype=np.float32)
        taken = np.zeros(len(members), dtype=bool)
        latest = int(rng.integers(len(members)))
        for _ in range(count):
            taken[latest] = True
            nearest = np.minimum(nearest, squares + squares[latest] - 2 * group @ group[latest])
            latest = int(np.where(taken, -1.0, nearest).argmax())
        chosen.append(members[taken])
    return np.concatenate(chosen)


def _members(rows: Rows, counts: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Give the row indices of each group that keeps any, with the number it keeps."""
    order = np.argsort(rows.groups, kind="stable")
    for members, count in zip(np.split(order, np.cumsum(rows.sizes)[:-1]), counts, strict=True):
        if count:
            yield members, int(count)
