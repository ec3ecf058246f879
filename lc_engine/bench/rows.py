"""Some rows of a source, as a source of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.data.readers.records import Records
from lc_engine.data.readers.rows import RowSource
from lc_engine.language.source import InstructionSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.data.batch import Batch, Source
    from lc_engine.data.readers.records import Record
    from lc_engine.data.readers.rows import Load


def some_rows(source: Source, rows: int) -> Source:
    """Give `rows` rows of a source: spread over it where each is decoded alone, else its first.

    Pictures lie class by class in a folder, so that its first rows would be of one class.
    """
    if rows >= len(source):
        return source
    if isinstance(source, InstructionSource):
        return InstructionSource(_FirstRecords(source.records, rows), source.encoder, source.form)
    return _Spread(source, rows) if isinstance(source, RowSource) else _First(source, rows)


class _Spread(RowSource):
    def __init__(self, source: RowSource, rows: int) -> None:
        super().__init__(source.transform, source.num_workers, source.classes)
        self._source = source
        self._positions = np.linspace(0, len(source) - 1, rows).round().astype(int).tolist()

    def __len__(self) -> int:
        return len(self._positions)

    def _ids(self, rows: range) -> np.ndarray:
        chosen = self._positions[rows.start : rows.stop]
        return np.concatenate([self._source._ids(range(row, row + 1)) for row in chosen])

    def _loads(self, rows: range) -> Iterator[Load]:
        for row in self._positions[rows.start : rows.stop]:
            yield from self._source._loads(range(row, row + 1))

    def digest(self) -> str:
        return self._source.digest()

    def describe(self) -> dict[str, Any]:
        return self._source.describe() | {"rows": len(self), "of": len(self._source)}


class _First:
    def __init__(self, source: Source, rows: int) -> None:
        self._source = source
        self._rows = rows
        self.classes = source.classes

    def __len__(self) -> int:
        return self._rows

    def digest(self) -> str:
        return self._source.digest()

    def describe(self) -> dict[str, Any]:
        return self._source.describe() | {"rows": self._rows, "of": len(self._source)}

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        return self._source.batches(batch_size, start, self._rows if stop is None else stop)


class _FirstRecords(Records):
    def __init__(self, records: Records, rows: int) -> None:
        self._records = records
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def read(self, start: int, stop: int) -> Iterator[Record]:
        return self._records.read(start, stop)

    def digest(self) -> str:
        return self._records.digest()

    def describe(self) -> dict[str, Any]:
        return self._records.describe() | {"rows": self._rows, "of": len(self._records)}
