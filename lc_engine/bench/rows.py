"""Some rows of a source, for a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine.data.readers.rows import RowSource
from lc_engine.data.wrap.subset import Subset, whole_of

if TYPE_CHECKING:
    from lc_engine.data.batch import Source


def some_rows(source: Source, rows: int) -> Source:
    """Return `rows` rows of a source: evenly spaced where each is decoded alone, else its first.

    Images lie class by class in a folder, so that its first rows would be of one class.
    """
    if rows >= len(source):
        return source
    spread = isinstance(whole_of(source), RowSource)
    return Subset.spread(source, rows) if spread else Subset.first(source, rows)
