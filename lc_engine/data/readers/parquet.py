"""Parquet: one file or a folder of them, streamed row group by row group."""

from __future__ import annotations

import bisect
import functools
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

from lc_engine._util.extras import require
from lc_engine.data.faults import Fault, fault_of, resumed
from lc_engine.data.locations import for_arrow
from lc_engine.data.readers.blocks import Block, BlockSource
from lc_engine.data.readers.columns import (
    choose_feature_column,
    choose_label_column,
    columns_table,
    feature_width,
    rebatched,
)
from lc_engine.data.readers.parquet_footer import check_rows, read_footer
from lc_engine.data.readers.unreadable_files import open_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

# Rows decoded at a time. Fixed, so that the readable rows of a damaged row group do not depend on
# the batch size.
_CHUNK_ROWS = 8192


class ParquetFiles:
    """Parquet files with the same columns, read as one table in the order of their names.

    Args:
        path: a file, or a folder whose `*.parquet` files are read. A file of a folder whose footer
            cannot be read is left out and listed in `unreadable`.
        chunk_rows: rows decoded at a time.

    Attributes:
        paths: the files that are read.
        unreadable: name of a file -> why it is left out.
        states: of the files that are read.
        schema: the columns, as Arrow.

    Raises:
        ValueError: no readable file.
    """

    def __init__(self, path: Path, chunk_rows: int) -> None:
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"{path} holds no *.parquet files")
        footers, self.unreadable, self.states = open_readable(found, read_footer)
        self.paths = list(footers)
        schemas = {file: footer.schema for file, footer in footers.items()}
        self._schemas: dict[Path, pa.Schema] = schemas
        self.schema: pa.Schema = schemas[self.paths[0]]
        self._chunk_rows = chunk_rows
        self._groups = [
            (file, group) for file, footer in footers.items() for group in range(len(footer.groups))
        ]
        sizes = [footers[file].groups[group] for file, group in self._groups]
        # First row of each group over all files, then the number of rows.
        self._starts: list[int] = list(accumulate(sizes, initial=0))

    def __len__(self) -> int:
        """Return the number of rows of all files."""
        return self._starts[-1]

    def use(self, names: tuple[str, str | None]) -> None:
        """Set the columns to read: inputs and labels, None for no labels.

        Raises:
            ValueError: a column that is missing in a file, or has another type there.
        """
        self.columns = names
        self._read = [name for name in names if name is not None]
        types = [self.schema.field(name).type for name in self._read]
        for file, schema in self._schemas.items():
            for name, wanted in zip(self._read, types, strict=True):
                found = schema.field(name).type if name in schema.names else "missing"
                if found != wanted:
                    raise ValueError(
                        f"column {name!r} is {wanted} in {self.paths[0].name}, but {found} in "
                        f"{file.name}"
                    )

    def tables(self, start: int) -> Iterator[pa.Table]:
        """Decode the rows from `start` on, as `columns_table`s of a chunk each."""
        first = bisect.bisect_right(self._starts, start) - 1
        skip = start - self._starts[first]
        for group in range(first, len(self._groups)):
            for table in self._group_tables(group):
                if skip < len(table):
                    yield table.slice(skip)
                skip = max(0, skip - len(table))

    def _group_tables(self, group: int) -> Iterator[pa.Table]:
        pa = require("pyarrow", "table")
        path, index = self._groups[group]
        inputs, labels = (one.type for one in self._columns(self.schema.empty_table()))
        left = self._starts[group + 1] - self._starts[group]
        try:
            for piece in resumed(functools.partial(self._pieces, path, index), path):
                check_rows(min(0, left - len(piece)))
                left -= len(piece)
                yield columns_table(*self._columns(piece))
            check_rows(left)
        except (pa.ArrowException, OSError, ValueError) as error:
            if fault_of(error) is not Fault.ROW:
                raise
            reason = f"row group {index} of {path.name}: {' '.join(str(error).split())}"
            for done in range(0, left, self._chunk_rows):
                rows = min(self._chunk_rows, left - done)
                yield columns_table(pa.nulls(rows, inputs), pa.nulls(rows, labels), reason)

    def _columns(self, rows: Any) -> tuple[Any, Any]:
        """Return inputs and labels of rows; labels that are not read are null."""
        inputs, labels = self.columns
        pa = require("pyarrow", "table")
        nothing = pa.nulls(rows.num_rows, pa.int64())
        return rows.column(inputs), nothing if labels is None else rows.column(labels)

    def _pieces(self, path: Path, index: int, skipped: int) -> Iterator[pa.RecordBatch]:
        """Decode a row group, a chunk at a time, without the first chunks."""
        parquet = require("pyarrow.parquet", "table")
        with (
            for_arrow(path) as file,
            parquet.ParquetFile(file, page_checksum_verification=True, pre_buffer=False) as opened,
        ):
            pieces = opened.iter_batches(self._chunk_rows, row_groups=[index], columns=self._read)
            yield from islice(pieces, skipped, None)

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were; see `FileStates.check`."""
        touched = {self._groups[i][0] for i in range(*groups_of(self._starts, rows))}
        self.states.part([i for i, path in enumerate(self.paths) if path in touched]).check()

    def digest(self) -> str:
        """Hash the name, size and modification time of every file that is read."""
        return self.states.digest()

    def describe(self) -> dict[str, Any]:
        """Return the numbers of files and rows, the columns and the files that are left out."""
        return {
            "files": len(self.paths),
            "rows": len(self),
            "feature_column": self.columns[0],
            "label_column": self.columns[1],
        } | ({"refused": self.unreadable} if self.unreadable else {})


class ParquetSource(BlockSource):
    """A column of number lists and a column of integer labels, in Parquet.

    Rows of a row group that cannot be decoded are unreadable; the others are read.

    Args:
        path: a file, or a folder of files; see `ParquetFiles`.
        feature_column: its name; None takes the only column of number lists.
        label_column: its name; None takes "label", else the only integer column.

    Raises:
        ValueError: not Parquet, files with different columns, a missing column (the text lists
            the columns) or one of a wrong type.
    """

    def __init__(
        self, path: Path, feature_column: str | None = None, label_column: str | None = None
    ) -> None:
        super().__init__()
        self.files = ParquetFiles(path, _CHUNK_ROWS)
        schema = self.files.schema
        self.files.use(
            (
                choose_feature_column(feature_column, schema),
                choose_label_column(label_column, schema),
            )
        )

    def __len__(self) -> int:
        """Return the number of rows of all files."""
        return len(self.files)

    @functools.cached_property
    def width(self) -> int:
        """D, the length of most features at the beginning; 1 if no row has any."""
        widths = (feature_width(table.column("features")) for table in self.files.tables(0))
        return next((width for width in widths if width), 1)

    def _reader(self, start: int) -> Callable[[range], Block]:
        return rebatched(self.files.tables(start), self.width)

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were; see `FileStates.check`."""
        self.files.check_unchanged(rows)

    def digest(self) -> str:
        """Hash the name, size and modification time of every file."""
        return self.files.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the files, the columns and the width."""
        return {"kind": "parquet", **self.files.describe(), "shape": [self.width]}


def groups_of(starts: list[int], rows: range) -> tuple[int, int]:
    """Return first and end of the groups that hold some rows.

    Args:
        starts: first row of each group, then the number of rows.
        rows: the rows.
    """
    return max(0, bisect.bisect_right(starts, rows.start) - 1), bisect.bisect_left(
        starts, rows.stop
    )
