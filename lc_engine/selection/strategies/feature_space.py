"""easy_diverse and moderate: the easiest of each cluster, and rows at a typical distance."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from lc_engine._util.extras import require
from lc_engine._util.grouped import smallest_per_group
from lc_engine.selection.budget import apportion
from lc_engine.selection.strategies.per_group import chunks, mean_of_rows, per_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.problem import Problem

_BATCH = 4096  # rows per k-means step
_CLUSTERS, _MOST_CLUSTERS, _KEPT_PER_CLUSTER = 16, 256, 64
FIT_ROWS = 131_072  # that k-means reads: in the order of a hash, so a random sample


def easy_diverse(
    problem: Problem,
    rng: np.random.Generator,
    *,
    score: str,
    features: NDArray[np.float32],
    clusters: int | None = None,
) -> NDArray[np.intp]:
    """Keep the easiest rows of each k-means cluster of each group.

    arXiv 2402.05356 v1, section 4: k-means on the features with k in 8..24, then the samples of
    highest learning complexity in every cluster. Clusters share the budget by their size.

    Args:
        problem: rows and budgets.
        rng: seeds k-means.
        score: the column of numbers that ranks rows.
        features: (N, D) of the rows.
        clusters: k per group, or the group's budget if that is smaller. None is 16, and in a group
            that keeps more than 1,024 rows one for each 64, 256 at most.

    Raises:
        ValueError: fewer than one cluster.
        MissingExtraError: scikit-learn is not installed.
    """
    if clusters is not None and clusters < 1:
        raise ValueError(f"clusters must be at least 1, got {clusters}")
    k_means = require("sklearn.cluster", "select").MiniBatchKMeans
    hardness = problem.rows.hardness(score)

    def easiest_of_clusters(members: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        k = clusters_of(count, clusters)
        model = k_means(k, batch_size=_BATCH, n_init=1, random_state=int(rng.integers(1 << 31)))
        with warnings.catch_warnings():
            # Fewer distinct rows than clusters: some stay empty, and get no budget.
            warnings.filterwarnings("ignore", "Number of distinct clusters")
            model.fit(features[members[:FIT_ROWS]])
            parts = [model.predict(rows) for _, rows in chunks(features, members)]
        cluster = np.concatenate(parts).astype(np.intp)
        budget = apportion(np.bincount(cluster, minlength=k).astype(np.int64), count)
        return smallest_per_group(hardness[members], cluster, budget)

    return per_group(problem, easiest_of_clusters)


def clusters_of(count: int, clusters: int | None) -> int:
    """Return the clusters of a group that keeps `count` rows; see `easy_diverse`."""
    if clusters is None:
        clusters = min(max(_CLUSTERS, count // _KEPT_PER_CLUSTER), _MOST_CLUSTERS)
    return min(clusters, count)


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
        mean = mean_of_rows(features, members).astype(np.float32)
        distance = np.empty(len(members), dtype=np.float32)
        for part, chunk in chunks(features, members):
            distance[part] = np.linalg.norm(chunk - mean, axis=1)
        deviation[members] = np.abs(distance - np.median(distance))
    return smallest_per_group(deviation, rows.groups, counts)
