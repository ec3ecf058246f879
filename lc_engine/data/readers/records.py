"""Rows as mappings of fields: a JSON list, Parquet, `datasets` or a list in memory, by ranges."""

from __future__ import annotations

import bisect
import hashlib
import json
from abc import ABC, abstractmethod
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from lc_engine._util.extras import require
from lc_engine.data.batch import UNREADABLE
from lc_engine.data.readers.arrays import files_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

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
    """A known number of records; one that cannot be read still takes its index."""

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
        path: the file that they come from, if any.
    """

    def __init__(self, rows: Sequence[Any], path: Path | None = None) -> None:
        self.rows = rows
        self.path = path

    @classmethod
    def from_json(cls, path: Path) -> ListRecords:
        """Read a file that is one JSON list, as Alpaca and ShareGPT were published.

        Raises:
            ValueError: not JSON, or not a list.
        """
        try:
            rows = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"{path} is not one JSON value ({error}): a file with an object per line must be "
                "named .jsonl"
            ) from None
        if not isinstance(rows, list):
            raise ValueError(f"{path} must hold a JSON list of rows, got a {type(rows).__name__}")
        return cls(rows, path)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """Read rows [start, stop); see `Records.read`."""
        for number in range(start, stop):
            yield Record(self.rows[number], f"row {number}")

    def digest(self) -> str:
        """Hash the file's name, size and modification time; without a file, all rows."""
        if self.path is not None:
            return files_digest([self.path])
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps(row, sort_keys=True, default=repr).encode() + b"\n")
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the kind and the number of rows."""
        return {"kind": "list" if self.path is None else "json", "rows": len(self)}


class ParquetRecords(Records):
    """The rows of Parquet files, sorted by name.

    Args:
        path: a file, or a folder of `*.parquet`.

    Raises:
        ValueError: not Parquet.
    """

    def __init__(self, path: Path) -> None:
        pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
        self.paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        groups = []
        for file in self.paths:
            try:
                footer = parquet.read_metadata(file)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{file} cannot be read as Parquet: {error}") from None
            groups += [
                (file, i, footer.row_group(i).num_rows) for i in range(footer.num_row_groups)
            ]
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
        pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
        path, index, rows = self._groups[group]
        number = self._starts[group]
        end = number + rows
        try:
            with parquet.ParquetFile(path, page_checksum_verification=True) as opened:
                for chunk in opened.iter_batches(_CHUNK_ROWS, row_groups=[index]):
                    for fields in chunk.to_pylist():
                        yield Record(fields, f"row {number}")
                        number += 1
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk failed, not the data
            reason = f"row group {index} of {path.name}: {' '.join(str(error).split())}"
            for row in range(number, end):
                yield Record(RowError(UNREADABLE, reason), f"row {row}")

    def digest(self) -> str:
        """Hash the name, size and modification time of every file."""
        return files_digest(self.paths)

    def describe(self) -> dict[str, Any]:
        """Return the kind, the number of files and of rows."""
        return {"kind": "parquet", "files": len(self.paths), "rows": len(self)}


class DatasetRecords(Records):
    """The rows of a `datasets.Dataset`.

    Args:
        dataset: the data set; its format is not used.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset.with_format("arrow")

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.dataset.num_rows)

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """Read rows [start, stop); see `Records.read`."""
        for first in range(start, stop, _CHUNK_ROWS):
            chunk = self.dataset[first : min(first + _CHUNK_ROWS, stop)]
            for number, fields in enumerate(chunk.to_pylist(), first):
                yield Record(fields, f"row {number}")

    def digest(self) -> str:
        """Hash the rows: the fingerprint of `datasets` is random after some operations."""
        digest = hashlib.sha256()
        for record in self.read(0, len(self)):
            digest.update(json.dumps(record.fields, sort_keys=True, default=repr).encode() + b"\n")
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the kind and the number of rows."""
        return {"kind": "datasets", "rows": len(self)}
