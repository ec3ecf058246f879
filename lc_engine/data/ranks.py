"""The rank of a row within its group: 0 is the hardest, 1 the easiest.

A group is a class, and of data from several sources a class of one source; rows without a class are
one group per source. Scores are comparable within a group only, as classes differ in how hard they
are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lc_engine._util.grouped import rank_within_groups

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

RANK: Final = "rank"
SOURCE: Final = "source"


def ranks(hardness: NDArray[np.floating], groups: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the rank (N,) of each row within its group.

    Args:
        hardness: (N,), NaN for a row without a score, whose rank is NaN.
        groups: (N,), at least 0.

    Returns:
        Rows that are harder / (rows of the group − 1); 0.5 for a row alone.
    """
    found = np.full(len(groups), np.nan, np.float32)
    rows = np.flatnonzero(~np.isnan(hardness))
    if len(rows):
        sizes = np.bincount(groups[rows]).astype(np.int64)
        harder = harder_rows(hardness[rows], groups[rows])
        found[rows] = to_rank(harder, sizes[groups[rows]])
    return found


def harder_rows(hardness: NDArray[np.floating], groups: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return how many rows of its group are harder than each row (N,); of equals the earlier."""
    sizes = np.bincount(groups).astype(np.int64)
    return rank_within_groups((-hardness).astype(np.float32), groups, sizes)


def to_rank(harder: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the ranks (N,) of rows with so many harder ones in groups of so many rows."""
    return np.where(rows > 1, harder / np.maximum(rows - 1, 1), 0.5).astype(np.float32)


class Groups:
    """Numbers of groups, the same in all pieces of a table.

    Attributes:
        names: (label, source) by number; the source is "" where the table has none.
    """

    def __init__(self) -> None:
        self.names: list[tuple[int, str]] = []
        self._known: dict[tuple[int, str], int] = {}

    @staticmethod
    def columns(names: list[str]) -> list[str]:
        """Return those columns of a table that tell its groups."""
        return ["label", *([SOURCE] if SOURCE in names else [])]

    def numbers(self, piece: pa.Table) -> NDArray[np.intp]:
        """Return the group (M,) of each row of a piece with the columns that tell it."""
        labels, index = np.unique(_numpy(piece, "label"), return_inverse=True)
        sources = [""]
        if SOURCE in piece.column_names:
            encoded = piece.column(SOURCE).combine_chunks().dictionary_encode()
            sources = encoded.dictionary.to_pylist()
            index = index * len(sources) + np.asarray(encoded.indices)
        pairs, inverse = np.unique(index, return_inverse=True)
        numbers = [
            self._number(int(labels[pair // len(sources)]), sources[pair % len(sources)])
            for pair in pairs.tolist()
        ]
        return np.asarray(numbers, np.intp)[inverse]

    def _number(self, *name: Any) -> int:
        number = self._known.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number


def _numpy(piece: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(piece.column(name).to_numpy())
