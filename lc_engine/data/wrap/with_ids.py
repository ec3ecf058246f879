"""A source whose rows have other ids."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lc_engine.data.identity import check_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from lc_engine.data.batch import Batch, Source


class WithIds:
    """The rows of a source under given ids, which a memory bank breaks ties by.

    Args:
        source: of N rows.
        ids: (N,) distinct.
    """

    def __init__(self, source: Source, ids: np.ndarray) -> None:
        self.source, self.ids = source, ids
        self.classes = source.classes
        self.num_workers = getattr(source, "num_workers", None)

    def __len__(self) -> int:
        """Return N."""
        return len(self.source)

    def digest(self) -> str:
        """Return the fingerprint of the rows, ids left out."""
        return self.source.digest()

    def describe(self) -> dict[str, Any]:
        """Return what the source is."""
        return self.source.describe()

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were."""
        check_unchanged(self.source, rows)

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order; see `Source.batches`."""
        for batch in self.source.batches(batch_size, start, stop):
            yield replace(batch, ids=self.ids[start : start + len(batch)])
            start += len(batch)
