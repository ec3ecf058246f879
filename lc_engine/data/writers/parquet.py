"""Rows of Parquet files, with their schema, metadata and compression."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.faults import Fault, fault_of
from lc_engine.data.locations import for_arrow
from lc_engine.data.readers.parquet_footer import read_footer
from lc_engine.data.readers.parsing import parsing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

# Rows and bytes of a row group that is written, and of the rows that are decoded at a time.
_GROUP_ROWS = 8192
_GROUP_BYTES = 1 << 26
_CHUNK_BYTES = 1 << 25


def row_counts(paths: Sequence[Path]) -> list[int]:
    """Return the number of rows of each file.

    Raises:
        ValueError: a damaged file.
    """
    return [sum(read_footer(path).groups) for path in paths]


def copy_parquet(parts: Sequence[tuple[Path, NDArray[np.int64]]], out: Path) -> None:
    """Copy rows of files of one schema into one file; row groups without any are not read.

    Args:
        parts: file and its rows, ascending, in the order of the rows.
        out: the new file: schema, metadata and compression of the first one.

    Raises:
        ValueError: a row that cannot be decoded.
    """
    parquet = require("pyarrow.parquet", "table")
    where_first = parts[0][0]
    with (
        parsing(where_first, "Parquet"),
        for_arrow(where_first) as where,
        parquet.ParquetFile(where) as first,
    ):
        schema, codecs = first.schema_arrow, _codecs(first)
    with parquet.ParquetWriter(out, schema, compression=codecs) as writer:
        held: list[Any] = []
        for path, kept in parts:
            for piece in _kept_rows(path, kept):
                held.append(piece.cast(schema))
                if _is_group(held):
                    _write(writer, held)
                    held = []
        _write(writer, held)


def _codecs(file: Any) -> dict[str, str] | str:
    """Return the compression of each column, as `ParquetWriter` takes it."""
    footer = file.metadata
    if not footer.num_row_groups or not footer.num_columns:
        return "zstd"
    group = footer.row_group(0)
    columns = (group.column(i) for i in range(group.num_columns))
    found = {column.path_in_schema: column.compression.lower() for column in columns}
    return {name: "none" if codec == "uncompressed" else codec for name, codec in found.items()}


def _is_group(held: list[pa.Table]) -> bool:
    rows, size = sum(map(len, held)), sum(piece.nbytes for piece in held)
    return rows >= _GROUP_ROWS or size >= _GROUP_BYTES


def _write(writer: Any, held: list[pa.Table]) -> None:
    if held:
        writer.write_table(require("pyarrow", "table").concat_tables(held))


def _kept_rows(path: Path, kept: NDArray[np.int64]) -> Iterator[pa.Table]:
    pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
    with parsing(path, "Parquet"), for_arrow(path) as where, parquet.ParquetFile(where) as file:
        start = 0
        for index in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(index)
            rows = within(kept, start, start + group.num_rows)
            start += group.num_rows
            if not len(rows):
                continue
            size = max(1, group.total_byte_size // max(1, group.num_rows))
            at_a_time = int(np.clip(_CHUNK_BYTES // size, 1, _GROUP_ROWS))
            read, done = functools.partial(file.iter_batches, at_a_time, row_groups=[index]), 0
            try:
                for batch in read():
                    here = within(rows, done, done + len(batch))
                    done += len(batch)
                    if len(here):
                        yield pa.Table.from_batches([batch]).take(here)
                    if done > rows[-1]:
                        break
            except (pa.ArrowException, OSError) as error:
                if fault_of(error) is not Fault.ROW:
                    raise
                raise ValueError(f"row group {index}: {error}") from None


def within(kept: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """Return those of ascending indices that lie in [start, stop), relative to `start`."""
    first, last = np.searchsorted(kept, [start, stop])
    return kept[first:last] - start
