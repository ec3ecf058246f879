"""select_streamed: `select` for score tables that do not fit in memory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lc_engine.data.table import ScoreTable
from lc_engine.selection.arguments import (
    check_gamma,
    check_gamma_applies,
    check_seed,
)
from lc_engine.selection.auto_gamma.choice import by_rule, log_one_pool
from lc_engine.selection.budget import allocate
from lc_engine.selection.columns import nothing_to_keep
from lc_engine.selection.method import Method
from lc_engine.selection.noise_guard import WRONG_ANSWERS, has_ifd
from lc_engine.selection.strategies.flexrand import easy_counts, easy_pool_sizes, per_pool
from lc_engine.selection.streamed.bottom_k import BottomK
from lc_engine.selection.streamed.chunks import Chunk, Chunks
from lc_engine.selection.streamed.radix_select import Borders, Histogram
from lc_engine.selection.streamed.unique_ids import UniqueIds

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lc_engine.selection.budget import Bound

_log = logging.getLogger(__name__)

STREAMED = ("easy", "flexrand", "hard", "random")
# Unresolved rows that may be sorted; if more share a bin, another pass narrows it first.
_MAX_UNRESOLVED = 1 << 23
_SLACK = 6.0  # standard deviations; see `BottomK`


def select_streamed(
    scores: ScoreTable | str | Path,
    keep: float,
    strategy: str = "flexrand",
    *,
    gamma: float | Literal["auto"] = "auto",
    by: str | None = "label",
    seed: int = 0,
    score: str = "loss",
    floor: Bound = None,
    cap: Bound = None,
) -> NDArray[Any]:
    """Return the ids of the rows to keep as `select` does, reading the table in chunks.

    "easy" and "hard" keep the same rows as `select`. "flexrand" has the same pools and keeps as
    many rows of each, but the draw inside a pool is another one; so is that of "random". The result
    depends on the seed and the set of rows, not on their order.

    Args:
        scores: a table, or the file or folder that holds one.
        keep: a float in (0, 1] is a fraction, an int of at least 1 a count.
        strategy: one of `STREAMED`, or "auto", which is FlexRand where no features are read.
        gamma: FlexRand's split γ in [0, 1], or "auto" for the rule of `choose_gamma`.
        by: the column whose values share the budget, or None for one group.
        seed: of every draw, at least 0.
        score: the column of numbers that ranks rows.
        floor: least number kept per group, as in `select`.
        cap: greatest number kept per group.

    Returns:
        The ids kept, ascending.

    Raises:
        ValueError: naming the invalid argument, column or row.
    """
    return make_streamed_selection(
        scores,
        keep,
        strategy,
        gamma=gamma,
        by=by,
        seed=seed,
        score=score,
        floor=floor,
        cap=cap,
    )[0]


def make_streamed_selection(
    scores: ScoreTable | str | Path,
    keep: float,
    strategy: str,
    *,
    gamma: float | Literal["auto"],
    by: str | None,
    seed: int,
    score: str,
    floor: Bound,
    cap: Bound,
) -> tuple[NDArray[Any], Method]:
    """Return what `select_streamed` does, which has the arguments, and its method."""
    if strategy == "auto":  # without features, as there
        strategy = "flexrand"
    if strategy not in STREAMED:
        raise ValueError(f"strategy {strategy!r} cannot be streamed; {', '.join(STREAMED)} can")
    check_gamma_applies(gamma, strategy, strategy == "flexrand")
    seed = check_seed(seed)
    table = scores if isinstance(scores, ScoreTable) else ScoreTable.read(scores)
    if strategy == "hard" and has_ifd(table):
        _log.warning(WRONG_ANSWERS)
    chunks = Chunks(table, by, score, hardest_first=strategy == "hard")
    histogram, unique = Histogram(), UniqueIds(len(table))
    for chunk in chunks:
        histogram.add(len(chunks.group_names), chunk)
        unique.add(chunk)
    if not chunks.group_names:
        raise ValueError(nothing_to_keep(table))
    unique.check(chunks)
    order = chunks.sort_groups()
    sizes = np.array([histogram.counts[i].sum(dtype=np.int64) for i in order])
    counts = allocate(sizes, np.array(chunks.group_names), keep, floor=floor, cap=cap)
    used = _used_gamma(gamma, counts) if strategy == "flexrand" else None
    pool, wanted = _pools(strategy, sizes, counts, used, seed)
    borders = Borders(histogram, order, pool)
    del histogram
    while borders.unresolved > _MAX_UNRESOLVED:
        borders.refine(chunks)
    slack = _SLACK
    while True:
        sample = BottomK(per_pool(pool, sizes), per_pool(wanted, counts), slack, seed)
        kept = _sample(chunks, borders, sample)
        if kept is not None:
            return np.sort(kept), Method(strategy, used)
        slack *= 2  # once in 10⁸ times


def _used_gamma(gamma: float | Literal["auto"], counts: NDArray[np.int64]) -> float:
    """Return the γ that was given, or that the rule gives; log where it is one of random."""
    if gamma == "auto":
        choice = by_rule(counts)
        choice.log()
        return choice.gamma
    if gamma in (0, 1):
        log_one_pool(gamma)
    return check_gamma(gamma)


def _pools(
    strategy: str,
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
    gamma: float | None,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows (G,) in the first pool of each group, and how many (G,) of them are kept."""
    if strategy in ("easy", "hard"):
        return counts, counts
    if gamma is None:
        return np.zeros_like(sizes), np.zeros_like(sizes)
    rng = np.random.default_rng(seed).spawn(1)[0]
    return easy_pool_sizes(sizes, gamma), easy_counts(sizes, counts, gamma, rng)


def _sample(chunks: Chunks, borders: Borders, sample: BottomK) -> NDArray[Any] | None:
    """Return the ids sampled from the two pools of each group; None if the slack is too narrow."""
    unresolved: list[Chunk] = []
    for chunk in chunks:
        side = borders.side(chunk)
        resolved = side != 0
        if not resolved.all():
            unresolved.append(chunk.where(~resolved))
            chunk, side = chunk.where(resolved), side[resolved]
        sample.add(chunk.ids, 2 * chunk.group + (side > 0), chunk.id_hash)
    if unresolved:
        rest = Chunk(*(np.concatenate(parts) for parts in zip(*unresolved, strict=True)))
        sample.add(rest.ids, 2 * rest.group + ~borders.below(rest), rest.id_hash)
    return sample.result()
