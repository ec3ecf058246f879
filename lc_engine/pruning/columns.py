"""Columns of the data beside those of the scores, to share a budget over or to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.features import Features
    from lc_engine.data.table import ScoreTable


class Columns(Mapping[str, "ArrayLike"]):
    """The columns of a score table, and others beside them; each is read when it is asked for.

    Args:
        table: the scores.
        others: further columns by name, (N,) each.

    Raises:
        ValueError: a name that the score table has already.
    """

    def __init__(self, table: ScoreTable, others: Mapping[str, NDArray[Any]]) -> None:
        both = [name for name in others if name in table.column_names]
        if both:
            raise ValueError(f"carry: the score table has a column {both[0]!r} already")
        self.table, self.others = table, dict(others)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the score table says of its run."""
        return self.table.metadata

    @property
    def has_features(self) -> bool:
        """Whether the run kept features; see `ScoreTable.has_features`."""
        return self.table.has_features

    def features(self) -> Features:
        """Open the features of the run; see `ScoreTable.features`."""
        return self.table.features()

    def __getitem__(self, name: str) -> ArrayLike:
        """Return a column."""
        if name in self.others:
            return self.others[name]
        if name not in self.table.column_names:
            raise KeyError(name)
        return self.table.column(name)

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter([*self.table.column_names, *self.others])

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.table.column_names) + len(self.others)
