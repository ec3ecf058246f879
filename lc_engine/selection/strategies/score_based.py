"""Strategies that need the score columns alone: easy, hard, random and stratified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection import grouped as draw
from lc_engine.selection.strategies.flexrand import hardness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.selection.eligible import Rows


def easy(
    rows: Rows, counts: NDArray[np.int64], rng: np.random.Generator, *, score: str
) -> NDArray[np.intp]:
    """Take the easiest rows of each group."""
    return draw.first(hardness(rows, score), rows.groups, counts)


def hard(
    rows: Rows, counts: NDArray[np.int64], rng: np.random.Generator, *, score: str
) -> NDArray[np.intp]:
    """Take the hardest rows of each group."""
    return draw.first(-hardness(rows, score), rows.groups, counts)


def random(rows: Rows, counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw rows of each group uniformly."""
    return draw.uniform(rows.groups, counts, rng)


def stratified(
    rows: Rows,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    score: str,
    bins: int = 50,
    cutoff: float = 0.1,
) -> NDArray[np.intp]:
    """Spread the budget evenly over ranges of the score, the hardest rows cut off.

    Coverage-centric coreset selection (Zheng et al., "Coverage-centric Coreset Selection for High
    Pruning Rates", ICLR 2023, algorithm 1), in every group: the hardest `cutoff` of the rows are
    set aside, the range of the others is cut into `bins` equal intervals, and the budget goes to
    the intervals from the least populated one up, each getting an equal share of what is left.

    Args:
        rows: the rows to choose from.
        counts: (G,) rows to keep of each group.
        rng: source of the draw inside an interval.
        score: "loss" or "lc".
        bins: intervals per group (the paper: 50).
        cutoff: share of the hardest rows set aside, less where the budget needs them (the paper
            tunes it: 0 at half the data kept, 0.1 to 0.3 at a tenth).

    Raises:
        ValueError: bins or cutoff out of range.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if not 0.0 <= cutoff < 1.0:
        raise ValueError(f"cutoff must lie in [0, 1), got {cutoff}")
    hard_first = hardness(rows, score)
    dropped = np.floor(cutoff * rows.sizes).astype(np.int64)
    stay = np.sort(draw.first(hard_first, rows.groups, np.maximum(counts, rows.sizes - dropped)))
    groups, value = rows.groups[stay], hard_first[stay].astype(np.float64)
    # An infinite loss (p = 0 somewhere on the path) is the end of the range, not its width.
    finite = np.isfinite(value)
    value = np.where(finite, value, value[finite].max(initial=0.0))
    low, high = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(low, groups, value)
    np.maximum.at(high, groups, value)
    width = np.where(high > low, high - low, 1.0)
    cell = np.minimum((value - low[groups]) / width[groups] * bins, bins - 1).astype(np.intp)
    cells = groups * bins + cell
    sizes = np.bincount(cells, minlength=len(counts) * bins).reshape(len(counts), bins)
    chosen = draw.uniform(cells, _water_fill(sizes, counts, rng).reshape(-1), rng)
    kept: NDArray[np.intp] = stay[chosen]
    return kept


def _water_fill(
    sizes: NDArray[np.int64], counts: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Share counts (G,) over bins of sizes (G, B): as equal as the sizes allow, exact in sum."""
    order = np.argsort(sizes, axis=1, kind="stable")
    ascending = np.take_along_axis(sizes, order, 1)
    result = np.zeros_like(sizes)
    left = counts.copy()
    bins = sizes.shape[1]
    for position in range(bins):
        given = np.minimum(ascending[:, position], left // (bins - position))
        result[:, position] = given
        left = left - given
    # Integer division may leave fewer rows than there are bins: one more to bins drawn at random.
    while left.any():
        priority = np.where(result < ascending, rng.random(result.shape), np.inf)
        place = np.argsort(np.argsort(priority, axis=1), axis=1)
        room = np.minimum(left, (result < ascending).sum(1))
        result += place < room[:, None]
        left = left - room
    filled = np.empty_like(result)
    np.put_along_axis(filled, order, result, 1)
    return filled
