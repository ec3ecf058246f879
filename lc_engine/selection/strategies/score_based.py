"""Strategies that read score columns only: easy, hard, random and stratified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine._util.grouped import sample_per_group, smallest_per_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.problem import Problem


def easy(problem: Problem, rng: np.random.Generator, *, score: str) -> NDArray[np.intp]:
    """Keep the easiest rows of each group."""
    rows, counts = problem
    return smallest_per_group(rows.hardness(score), rows.groups, counts)


def hard(problem: Problem, rng: np.random.Generator, *, score: str) -> NDArray[np.intp]:
    """Keep the hardest rows of each group."""
    rows, counts = problem
    return smallest_per_group(-rows.hardness(score), rows.groups, counts)


def random(problem: Problem, rng: np.random.Generator) -> NDArray[np.intp]:
    """Keep rows of each group drawn uniformly."""
    return sample_per_group(problem.rows.groups, problem.counts, rng)


def stratified(
    problem: Problem,
    rng: np.random.Generator,
    *,
    score: str,
    bins: int = 50,
    cutoff: float = 0.1,
) -> NDArray[np.intp]:
    """Keep rows spread evenly over the range of the score, without the hardest rows.

    Coverage-centric coreset selection (Zheng et al., "Coverage-centric Coreset Selection for High
    Pruning Rates", ICLR 2023, algorithm 1), in every group: the hardest `cutoff` of the rows are
    dropped, the range of the others is cut into `bins` equal intervals, and the budget goes to the
    intervals from the least populated one up, each getting an equal share of the rest.

    Args:
        problem: rows and budgets.
        rng: source of the draw inside an interval.
        score: the column of numbers that ranks rows.
        bins: intervals per group (the paper: 50).
        cutoff: share of the hardest rows to drop, less where the budget needs them (the paper
            tunes it: 0 when 50 % are kept, 0.1 to 0.3 when 10 % are).

    Raises:
        ValueError: bins or cutoff out of range.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if not 0.0 <= cutoff < 1.0:
        raise ValueError(f"cutoff must lie in [0, 1), got {cutoff}")
    rows, counts = problem
    hardness, sizes = rows.hardness(score), rows.group_sizes
    remaining = np.maximum(counts, sizes - np.floor(cutoff * sizes).astype(np.int64))
    candidates = np.sort(smallest_per_group(hardness, rows.groups, remaining))
    groups, value = rows.groups[candidates], hardness[candidates].astype(np.float64)
    # An infinite loss (p = 0 somewhere on the path) counts as the largest finite one.
    finite = np.isfinite(value)
    value = np.where(finite, value, value[finite].max(initial=0.0))
    low, high = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(low, groups, value)
    np.maximum.at(high, groups, value)
    width = np.where(high > low, high - low, 1.0)
    bin_ = np.minimum((value - low[groups]) / width[groups] * bins, bins - 1).astype(np.intp)
    cells = groups * bins + bin_
    cell_sizes = np.bincount(cells, minlength=len(counts) * bins).reshape(len(counts), bins)
    cell_counts = _water_fill(cell_sizes, counts, rng).reshape(-1)
    kept: NDArray[np.intp] = candidates[sample_per_group(cells, cell_counts, rng)]
    return kept


def _water_fill(
    sizes: NDArray[np.int64], counts: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return shares of counts (G,) for bins of sizes (G, B): as equal as the sizes allow."""
    order = np.argsort(sizes, axis=1, kind="stable")
    ascending = np.take_along_axis(sizes, order, 1)
    result = np.zeros_like(sizes)
    left = counts.copy()
    bins = sizes.shape[1]
    for i in range(bins):
        share = np.minimum(ascending[:, i], left // (bins - i))
        result[:, i] = share
        left = left - share
    # Integer division leaves fewer rows than bins: one more for bins drawn at random.
    while left.any():
        priority = np.where(result < ascending, rng.random(result.shape), np.inf)
        rank = np.argsort(np.argsort(priority, axis=1), axis=1)
        more = np.minimum(left, (result < ascending).sum(1))
        result += rank < more[:, None]
        left = left - more
    filled = np.empty_like(result)
    np.put_along_axis(filled, order, result, 1)
    return filled
