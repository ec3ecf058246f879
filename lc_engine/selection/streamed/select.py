"""Selection from a score table that does not fit in memory: two passes over its files.

The first pass counts rows by group and by score. That gives every group's budget, and the score at
which its easy rows end but for the few rows of one bin. The second pass reads the rows again, sets
those few apart to be sorted, and draws: a row's lot is a hash of its id and the seed, and of each
pool the rows with the smallest lots are kept. How large these are is known beforehand to within a
narrow band, so that nearly every row is kept or not the moment it is read.

Memory: 16 bytes per row that is kept, and under a gigabyte besides.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.table import ScoreTable
from lc_engine.selection.api import check_gamma, check_seed
from lc_engine.selection.auto_gamma.choice import by_rule
from lc_engine.selection.budget import apportion, bound_per_group, resolve_keep
from lc_engine.selection.eligible import hash_ids
from lc_engine.selection.strategies.flexrand import split
from lc_engine.selection.streamed.radix_select import Boundaries, Histogram, ordered_bits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from lc_engine.selection.budget import Bound

STREAMED = ("easy", "flexrand", "hard", "random")
# Rows that may be set apart to be sorted; where more share a bin, a pass narrows it first.
_OPEN_ROWS = 1 << 23
# Lots are compared by their upper bits, which a float64 holds exactly.
_LOT_BITS = 53
# Standard deviations that a pool's largest lot may lie off its expected place.
_SLACK = 6.0

_log = logging.getLogger(__name__)


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
    """Choose the rows to keep as `select` does, reading the table piece by piece.

    "easy" and "hard" keep the very rows that `select` keeps. "flexrand" has the same pools, and
    takes as many rows of each, but the draw inside a pool is another one; so is that of "random".
    The result depends on the seed and the set of rows, not on their order. An id that appears
    twice is not noticed.

    Args:
        scores: a table, or the file or folder that holds one.
        keep: a float in (0, 1] is a fraction, an int of at least 1 a count.
        strategy: one of `STREAMED`.
        gamma: FlexRand's split γ in [0, 1], or "auto" for the rule of `choose_gamma`.
        by: the column whose values share the budget, or None for one group.
        seed: of every draw, at least 0.
        score: "loss" or "lc", the column that tells easy from hard.
        floor: least number kept per group, as in `select`.
        cap: greatest number kept per group.

    Returns:
        The ids kept, ascending.

    Raises:
        ValueError: naming the argument, column or row that does not fit.
    """
    if strategy not in STREAMED:
        raise ValueError(f"strategy {strategy!r} cannot be streamed; {', '.join(STREAMED)} can")
    if gamma != "auto" and strategy != "flexrand":
        raise ValueError(f"gamma is an argument of flexrand, not of strategy {strategy}")
    if score not in ("loss", "lc"):
        raise ValueError(f'score must be "loss" (high = hard) or "lc" (high = easy), got {score!r}')
    seed = check_seed(seed)
    table = scores if isinstance(scores, ScoreTable) else ScoreTable.read(scores)
    # "hard" takes the first rows from the other end.
    ascending = (score == "loss") == (strategy != "hard")
    pieces = _Pieces(table, by, score, ascending)
    histogram = Histogram()
    for piece in pieces:
        histogram.add(len(pieces.names), piece.group, piece.score >> np.uint32(16))
    if not pieces.names:
        raise ValueError('scores has no row with status "ok": there is nothing to keep')
    order = pieces.settle()
    sizes = np.array([histogram.counts[place].sum(dtype=np.int64) for place in order])
    names = np.array(pieces.names)
    counts = apportion(
        sizes,
        resolve_keep(keep, int(sizes.sum())),
        floor=bound_per_group("floor", floor, names),
        cap=bound_per_group("cap", cap, names),
    )
    below, easy = _pools(strategy, sizes, counts, gamma, seed)
    boundaries = Boundaries(histogram, order, below)
    del histogram
    while boundaries.open_rows > _OPEN_ROWS:
        finer = boundaries.finer()
        for piece in pieces:
            finer.add(piece.group, piece.score, piece.key)
        finer.narrow()
    # Two pools per group, the easy one first, as in `flexrand`.
    cells = np.stack([below, sizes - below], 1).reshape(-1)
    wanted = np.stack([easy, counts - easy], 1).reshape(-1)
    slack = _SLACK
    while True:
        draw = _Draw(cells, wanted, slack, seed)
        kept = _collect(pieces, boundaries, draw)
        if kept is not None:
            return np.sort(kept)
        slack *= 2  # once in 10⁸ times


def _pools(
    strategy: str,
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
    gamma: float | Literal["auto"],
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give (G,) rows in the pool of smallest keys, and how many of them are kept."""
    if strategy in ("easy", "hard"):
        return counts, counts
    if strategy == "random":
        return np.zeros_like(sizes), np.zeros_like(sizes)
    if gamma == "auto":
        choice = by_rule(counts)
        _log.log(logging.WARNING if choice.random else logging.INFO, "%s", choice)
        gamma = choice.gamma
    return split(sizes, counts, check_gamma(gamma), np.random.default_rng(seed).spawn(1)[0])


class _Piece(NamedTuple):
    """Some rows that can be kept: ids, group, the score's ordered bits and the id's hash."""

    ids: NDArray[Any]
    group: NDArray[np.intp]
    score: NDArray[np.uint32]
    key: NDArray[np.uint64]


class _Pieces:
    """The rows of a table that can be kept, piece by piece, as often as is asked for.

    Attributes:
        names: the values of the column `by`, numbered as they were first seen; ascending once
            `settle` was called.
    """

    def __init__(self, table: ScoreTable, by: str | None, score: str, ascending: bool) -> None:
        for name in (score, *([by] if by else [])):
            if name not in table.column_names:
                raise ValueError(
                    f'scores has no column "{name}"; it has {", ".join(table.column_names)}'
                )
        self._table, self._by, self._score, self._ascending = table, by, score, ascending
        self._numbers: dict[Any, int] = {}

    @property
    def names(self) -> list[Any]:
        return list(self._numbers)

    def settle(self) -> NDArray[np.intp]:
        """Number the groups by their names, ascending; give (G,) the numbers that they had."""
        names = self.names
        order = sorted(range(len(names)), key=names.__getitem__)
        self._numbers = {names[number]: place for place, number in enumerate(order)}
        return np.array(order, np.intp)

    def __iter__(self) -> Iterator[_Piece]:
        columns = ["id", self._score, *([self._by] if self._by else [])]
        for part in self._table.pieces(*dict.fromkeys(columns)):
            scores = part.column(self._score)
            if scores.null_count:  # rows without a score, whose status says why
                part = part.filter(scores.is_valid())
            values = part.column(self._score).to_numpy()
            if not len(values):
                continue
            ids = np.asarray(part.column("id").to_numpy())
            bad = np.isnan(values)
            if bad.any():
                raise ValueError(
                    f'column "{self._score}" is NaN at id {ids[bad][:1].tolist()[0]!r}, whose '
                    'status is "ok": mark such rows "non_finite" or drop them'
                )
            hard = values if self._score == "loss" else -values
            hard = hard if (self._score == "loss") == self._ascending else -hard
            yield _Piece(ids, self._group(part), ordered_bits(hard), hash_ids(ids))

    def _group(self, part: Any) -> NDArray[np.intp]:
        if self._by is None:
            self._numbers.setdefault("all", 0)
            return np.zeros(len(part), np.intp)
        compute = require("pyarrow.compute", "table")
        column = compute.dictionary_encode(part.column(self._by).combine_chunks())
        values = column.dictionary.to_pylist()
        numbers = [self._numbers.setdefault(value, len(self._numbers)) for value in values]
        groups: NDArray[np.intp] = np.array(numbers, np.intp)[column.indices.to_numpy()]
        return groups


class _Draw:
    """Which lots are kept: surely those below `sure[cell]`, surely none from `never[cell]` on."""

    def __init__(
        self, sizes: NDArray[np.int64], wanted: NDArray[np.int64], slack: float, seed: int
    ) -> None:
        self.wanted = wanted
        share = wanted / np.maximum(sizes, 1)
        band = slack * np.sqrt(wanted * (1 - share)) + slack
        some = (wanted > 0) & (wanted < sizes)
        low = np.where(some, np.maximum(wanted - band, 0), wanted) / np.maximum(sizes, 1)
        high = np.where(some, np.minimum(wanted + band, sizes), wanted) / np.maximum(sizes, 1)
        whole = float(1 << _LOT_BITS)
        self.sure = (low * whole).astype(np.int64)
        self.never = (high * whole).astype(np.int64)
        # Another stream of lots for each seed, of the same ids.
        self._salt = hash_ids(np.array([seed % (1 << 63)]))[0]

    def lots(self, key: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Give each row its lot, uniform in [0, 2^53)."""
        mixed = hash_ids((key ^ self._salt).view(np.int64))
        return (mixed >> np.uint64(64 - _LOT_BITS)).astype(np.int64)


@dataclass
class _Band:
    """Rows that may be kept, by what the others of their pool drew."""

    ids: list[NDArray[Any]]
    cell: list[NDArray[np.intp]]
    lot: list[NDArray[np.int64]]


def _collect(pieces: _Pieces, boundaries: Boundaries, draw: _Draw) -> NDArray[Any] | None:
    """Read the rows and draw; None where the band was too narrow."""
    kept: list[NDArray[Any]] = []
    band = _Band([], [], [])
    taken = np.zeros(len(draw.wanted), np.int64)
    undecided: list[_Piece] = []

    def take(ids: NDArray[Any], cell: NDArray[np.intp], lot: NDArray[np.int64]) -> None:
        sure = lot < draw.sure[cell]
        kept.append(ids[sure])
        np.add(taken, np.bincount(cell[sure], minlength=len(taken)), out=taken)
        maybe = ~sure & (lot < draw.never[cell])
        band.ids.append(ids[maybe])
        band.cell.append(cell[maybe])
        band.lot.append(lot[maybe])

    for piece in pieces:
        side = boundaries.side(piece.group, piece.score, piece.key)
        told = side != 0
        if not told.all():
            undecided.append(_Piece(*(part[~told] for part in piece)))
            piece = _Piece(*(part[told] for part in piece))
            side = side[told]
        take(piece.ids, 2 * piece.group + (side > 0), draw.lots(piece.key))
    if undecided:
        rest = _Piece(*(np.concatenate(parts) for parts in zip(*undecided, strict=True)))
        below = boundaries.split_open(rest.group, rest.score, rest.key)
        take(rest.ids, 2 * rest.group + ~below, draw.lots(rest.key))
    ids, cell, lot = (np.concatenate(p) for p in (band.ids, band.cell, band.lot))
    left = draw.wanted - taken
    sizes = np.bincount(cell, minlength=len(left))
    if (left < 0).any() or (left > sizes).any():
        return None
    order = np.lexsort((lot, cell))
    place = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[cell[order]]
    return np.concatenate([*kept, ids[order[place < left[cell[order]]]]])
