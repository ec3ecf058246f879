"""Rows as mappings of fields: a JSON list, Parquet, `datasets` or a list in memory, by ranges."""

from __future__ import annotations

import bisect
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from itertools import accumulate, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lc_engine._util.extras import require
from lc_engine.data.batch import UNREADABLE
from lc_engine.data.faults import Fault, fault_of, patiently, resumed
from lc_engine.data.identity import FileStates
from lc_engine.data.locations import folders_of
from lc_engine.data.readers.arrow_rows import RowDecoder
from lc_engine.data.readers.arrow_slices import arrow_slices
from lc_engine.data.readers.json_text import parse_json
from lc_engine.data.readers.parquet_footer import check_rows, read_footer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

_CHUNK_ROWS = 1024


class RowError(ValueError):
    """A row that cannot be used: its status, and as text what is wrong with it."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Record(NamedTuple):
    """One row.

    Attributes:
        fields: the values by name, or why the row cannot be read.
        where: "line 4" or "row 3", for error messages.
    """

    fields: Any | RowError
    where: str


class Records(ABC):
    """A known number of records; one that cannot be read still takes its index.

    Attributes:
        states: of the files that the records are read from.
        folders: see `lc_engine.data.locations.folders_of`.
        folder: that relative paths of files in the rows are relative to: that of the file with the
            rows, or of the saved data set; of rows in memory the working directory.
    """

    states: FileStates
    folders: tuple[Path, ...] = ()
    folder: Path = Path()

    @property
    def stored(self) -> Records:
        """The rows as they are stored: these, unless fields have other names here."""
        return self

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Iterator[Record]:
        """Read rows [start, stop), in order."""

    @abstractmethod
    def digest(self) -> str:
        """Return a fingerprint of the rows."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the kind and the number of rows, as JSON."""


class ListRecords(Records):
    """Rows in memory.

    Args:
        rows: the fields of each by name.
        states: of the file that they come from; None if there is none.
    """

    def __init__(self, rows: Sequence[Any], states: FileStates | None = None) -> None:
        self.rows = rows
        self.is_file = states is not None
        self.states = FileStates.of([]) if states is None else states

    @classmethod
    def from_json(cls, path: Path) -> ListRecords:
        """Read a file that is one JSON list, as Alpaca and ShareGPT were published.

        Raises:
            ValueError: not JSON, or not a list.
        """
        states = FileStates.of([path], listed=False)
        rows = parse_json(patiently(path.read_bytes, path), path)
        if not isinstance(rows, list):
            raise ValueError(f"{path} must hold a JSON list of rows, got a {type(rows).__name__}")
        if not rows:
            raise ValueError(f"{path} holds no rows")
        return cls(rows, states)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """Read rows [start, stop); see `Records.read`."""
        for number in range(start, stop):
            yield Record(self.rows[number], f"row {number}")

    def digest(self) -> str:
        """Hash the file's name, size and modification time; without a file, all rows."""
        if self.is_file:
            return self.states.digest()
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps(row, sort_keys=True, default=repr).encode() + b"\n")
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the kind and the number of rows."""
        return {"kind": "json" if self.is_file else "list", "rows": len(self)}


class ParquetRecords(Records):
    """The rows of Parquet files, sorted by name.

    Args:
        path: a file, or a folder of `*.parquet`.

    Raises:
        ValueError: not Parquet.
    """

    def __init__(self, path: Path) -> None:
        self.paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        self.states = FileStates.of(self.paths)
        groups = []
        for file in self.paths:
            footer = patiently(functools.partial(read_footer, file), file)
            groups += [(file, i, rows) for i, rows in enumerate(footer.groups)]
        self._groups = groups
        self._starts: list[int] = list(accumulate((rows for _, _, rows in groups), initial=0))

    def __len__(self) -> int:
        """Return the number of rows of all files."""
        return self._starts[-1]

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """Read rows [start, stop); see `Records.read`."""
        first = max(0, bisect.bisect_right(self._starts, start) - 1)
        rows = (record for group in range(first, len(self._groups)) for record in self._read(group))
        skipped = start - self._starts[first]
        yield from islice(rows, skipped, skipped + stop - start)

    def _read(self, group: int) -> Iterator[Record]:
        """Read a row group; rows of it that cannot be decoded are unreadable, one by one."""
        pa = require("pyarrow", "table")
        path, index, rows = self._groups[group]
        number = self._starts[group]
        end = number + rows
        try:
            for chunk in resumed(functools.partial(_chunks, path, index), path):
                check_rows(min(0, end - number - len(chunk)))
                for fields in _stored_rows(chunk):
                    yield Record(fields, f"row {number}")
                    number += 1
            check_rows(end - number)
        except (pa.ArrowException, OSError, ValueError) as error:
            if fault_of(error) is not Fault.ROW:
                raise
            reason = f"row group {index} of {path.name}: {' '.join(str(error).split())}"
            for row in range(number, end):
                yield Record(RowError(UNREADABLE, reason), f"row {row}")

    def digest(self) -> str:
        """Hash the name, size and modification time of every file."""
        return self.states.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the number of files and of rows."""
        return {"kind": "parquet", "files": len(self.paths), "rows": len(self)}


def _chunks(path: Path, group: int, skipped: int) -> Iterator[pa.RecordBatch]:
    """Decode a row group, a chunk at a time, without the first chunks."""
    parquet = require("pyarrow.parquet", "table")
    with parquet.ParquetFile(path, page_checksum_verification=True) as opened:
        yield from islice(opened.iter_batches(_CHUNK_ROWS, row_groups=[group]), skipped, None)


def row_values(rows: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any] | RowError]:
    """Yield the fields of each row; a row with a text that is not UTF-8 is unreadable."""
    try:
        yield from rows.to_pylist()
    except UnicodeDecodeError:  # raised before the first is yielded
        for i in range(len(rows)):
            try:
                yield rows.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield RowError(UNREADABLE, f"a text is not UTF-8: {error}")


def _stored_rows(rows: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any] | RowError]:
    """Yield the fields of each row as stored; one that cannot be decoded is unreadable."""
    decoder = RowDecoder(rows.schema)
    for row in row_values(rows):
        fields = row
        if isinstance(row, dict):
            try:
                fields = next(decoder.rows([row]))
            except (ValueError, RecursionError) as error:
                fields = RowError(UNREADABLE, f"a column of JSON texts holds another: {error}")
        yield fields


class DatasetRecords(Records):
    """The rows of a `datasets.Dataset`.

    Args:
        dataset: the data set; its format is not used.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset.with_format("arrow")
        self.states = FileStates.of([Path(entry["filename"]) for entry in dataset.cache_files])
        self.folders = folders_of(dataset)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.dataset.num_rows)

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """Read rows [start, stop); see `Records.read`."""
        numbers = count(start)
        for chunk in arrow_slices(self.dataset, range(start, stop)):
            for fields in _stored_rows(chunk):
                yield Record(fields, f"row {next(numbers)}")

    def digest(self) -> str:
        """Hash the rows: the fingerprint of `datasets` is random after some operations."""
        digest = hashlib.sha256()
        for record in self.read(0, len(self)):
            digest.update(json.dumps(record.fields, sort_keys=True, default=repr).encode() + b"\n")
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the kind and the number of rows."""
        return {"kind": "datasets", "rows": len(self)}
