"""The eligible rows of a score table, read in chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lc_engine._util.extras import require
from lc_engine._util.grouped import ordered_bits
from lc_engine.data.batch import OK
from lc_engine.selection.columns import (
    as_numbers,
    check_has_column,
    check_no_nan,
    check_status,
    is_hard_when_high,
)
from lc_engine.selection.id_hash import hash_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lc_engine.data.table import ScoreTable


class Chunk(NamedTuple):
    """Some of the rows.

    Attributes:
        ids: (N,) int64 or str.
        group: (N,) index into the groups' names.
        score: (N,) 32 bits that order rows from the first kept to the last.
        id_hash: (N,) which breaks ties.
    """

    ids: NDArray[Any]
    group: NDArray[np.intp]
    score: NDArray[np.uint32]
    id_hash: NDArray[np.uint64]

    def where(self, mask: NDArray[np.bool_]) -> Chunk:
        """Return the rows where the mask (N,) is true."""
        return Chunk(self.ids[mask], self.group[mask], self.score[mask], self.id_hash[mask])


class Chunks:
    """The eligible rows of a table, which can be iterated over repeatedly.

    Args:
        table: the scores.
        by: the column that names the groups, or None for one group.
        score: a column of numbers.
        hardest_first: whether the hardest rows come first in the order, not the easiest.

    Raises:
        ValueError: a missing column.
    """

    def __init__(self, table: ScoreTable, by: str | None, score: str, hardest_first: bool) -> None:
        self._columns = list(dict.fromkeys(["id", "status", score, *([] if by is None else [by])]))
        for name in self._columns[1:]:
            check_has_column(table, name)
        self._table, self._by, self._score = table, by, score
        self._reverse = hardest_first == is_hard_when_high(table, score)
        self._index_of: dict[Any, int] = {}

    @property
    def group_names(self) -> list[Any]:
        """The groups' names by index: in order of appearance, until `sort_groups`."""
        return list(self._index_of)

    def sort_groups(self) -> NDArray[np.intp]:
        """Number the groups by name, ascending; return the numbers (G,) that they had."""
        names = self.group_names
        before = sorted(range(len(names)), key=names.__getitem__)
        self._index_of = {names[old]: new for new, old in enumerate(before)}
        return np.array(before, np.intp)

    def __iter__(self) -> Iterator[Chunk]:
        for part in self._table.pieces(*self._columns):
            compute = require("pyarrow.compute", "table")
            status = part.column("status")
            if status.null_count:
                check_status(status.to_numpy(), np.asarray(part.column("id").to_numpy()))
            ok = compute.equal(status, OK)
            if not compute.all(ok).as_py():
                part = part.filter(ok)
            values = as_numbers(self._score, part.column(self._score).to_numpy())
            if not len(values):
                continue
            ids = np.asarray(part.column("id").to_numpy())
            check_no_nan(self._score, values, ids)
            order = -values if self._reverse else values
            yield Chunk(ids, self._groups(part), ordered_bits(order), hash_ids(ids))

    def _groups(self, part: Any) -> NDArray[np.intp]:
        if self._by is None:
            self._index_of.setdefault("all", 0)
            return np.zeros(len(part), np.intp)
        compute = require("pyarrow.compute", "table")
        column = compute.dictionary_encode(part.column(self._by).combine_chunks())
        names = column.dictionary.to_pylist()
        indices = [self._index_of.setdefault(name, len(self._index_of)) for name in names]
        groups: NDArray[np.intp] = np.array(indices, np.intp)[column.indices.to_numpy()]
        return groups
