"""What sources of records share: rows of fields in order, as many at a time as a batch has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lc_engine.data.batch import Batch, row_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lc_engine.data.readers.records import Record, Records


class RecordSource(ABC):
    """A source whose rows are records, tokenized a batch at a time.

    Args:
        records: the rows.
    """

    def __init__(self, records: Records) -> None:
        self.records = records

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.records)

    @property
    def folders(self) -> tuple[Path, ...]:
        """See `lc_engine.data.locations.folders_of`."""
        return self.records.folders

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of the rows with what they were; see `FileStates.check`."""
        self.records.states.check()

    def digest(self) -> str:
        """Return a fingerprint of the rows."""
        return self.records.digest()

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order; see `Source.batches`."""
        return self._batches(row_ranges(len(self), batch_size, start, stop))

    def _batches(self, cuts: list[range]) -> Iterator[Batch]:
        if not cuts:
            return
        records = self.records.read(cuts[0].start, cuts[-1].stop)
        for cut in cuts:
            yield self._batch(cut, [next(records) for _ in cut])

    @abstractmethod
    def _batch(self, cut: range, records: list[Record]) -> Batch:
        """Return the batch of the rows of a cut."""
