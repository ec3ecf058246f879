"""A score table in files: opened by its footers, read a column at a time."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lc_engine._util.differences import differences
from lc_engine._util.extras import require
from lc_engine.data.table import ScoreTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

# Read at a time: some megabytes of a few columns.
_PIECE_ROWS = 1 << 18


class StoredTable(ScoreTable):
    """A score table whose parts lie in files, of which no more is read than is asked for.

    Args:
        files: its parts, in order.

    Raises:
        ValueError: a file that is no score table, or parts of different runs.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self._rows = 0
        for i, file in enumerate(self._files):
            schema, rows = _footer(file)
            self._rows += rows
            if i == 0:
                super().__init__(schema)
                first = schema
                continue
            other = ScoreTable(schema)
            difference = differences(self.metadata, other.metadata)
            if not difference and not schema.schema.equals(first.schema):
                difference = f"columns {first.column_names} -> {schema.column_names}"
            if difference:
                raise ValueError(f"{self._files[0]} and {file} are of different runs: {difference}")

    @functools.cached_property
    def _whole(self) -> pa.Table:
        return self._joined(*self.column_names)

    @property
    def table(self) -> pa.Table:
        """All rows, as Arrow; read, and kept, at the first use."""
        return self._whole

    def __len__(self) -> int:
        """Return the number of rows, scored or not."""
        return self._rows

    def _arrow(self, name: str) -> pa.ChunkedArray:
        return self._joined(name).column(name)

    def _joined(self, *names: str) -> pa.Table:
        pa = require("pyarrow", "table")
        nothing = self._table.select(list(names))  # gives the schema where no file has a row
        return pa.concat_tables([nothing, *self.pieces(*names)])

    def pieces(self, *names: str) -> Iterator[pa.Table]:
        """Give some columns, a piece of a file at a time."""
        pa = require("pyarrow", "table")
        for file in self._files:
            with _opened(file) as opened:
                for batch in opened.iter_batches(_PIECE_ROWS, columns=list(names)):
                    piece = pa.Table.from_batches([batch]).select(list(names))
                    yield piece.replace_schema_metadata(opened.schema_arrow.metadata)


def _footer(file: Path) -> tuple[pa.Table, int]:
    """Give an empty table of a file's columns, with their metadata, and its number of rows."""
    with _opened(file) as opened:
        empty, rows = opened.schema_arrow.empty_table(), opened.metadata.num_rows
    try:
        ScoreTable(empty)
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as a score table: {error}") from None
    return empty, rows


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
    try:
        # One file, not a data set: the folder's name must not become a column.
        with parquet.ParquetFile(file, page_checksum_verification=True, pre_buffer=False) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as a score table: {error}") from None
