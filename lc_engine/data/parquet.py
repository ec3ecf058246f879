"""Parquet: one file or a folder of them, streamed row group by row group."""

from __future__ import annotations

import bisect
import functools
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lc_engine.data.arrays import files_digest
from lc_engine.data.blocks import Block, BlockSource
from lc_engine.data.columns import (
    choose_feature_column,
    choose_label_column,
    columns_table,
    feature_width,
    rebatched,
)
from lc_engine.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

# Rows decoded at a time. Fixed, so that what can be read of a damaged row group does not depend
# on the batch size.
_CHUNK_ROWS = 8192


class ParquetSource(BlockSource):
    """A column of number lists and a column of integer labels, in Parquet.

    Rows of a row group that cannot be decoded are unreadable; the others are read.

    Args:
        path: a file, or a folder whose `*.parquet` files are read in the order of their names.
        feature_column: its name; None takes the only column of number lists.
        label_column: its name; None takes "label", else the only integer column.

    Raises:
        ValueError: not Parquet, files with different columns, a missing column (the text lists
            those there are) or one of a wrong type.
    """

    def __init__(
        self, path: Path, feature_column: str | None = None, label_column: str | None = None
    ) -> None:
        super().__init__()
        self.paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not self.paths:
            raise ValueError(f"{path} holds no *.parquet files")
        footers = [_footer(file) for file in self.paths]
        schemas = [footer.schema.to_arrow_schema() for footer in footers]
        self.columns = (
            choose_feature_column(feature_column, schemas[0]),
            choose_label_column(label_column, schemas[0]),
        )
        self._types = tuple(schemas[0].field(name).type for name in self.columns)
        for file, schema in zip(self.paths, schemas, strict=True):
            self._check_columns(file, schema)
        self._groups = [
            (file, group)
            for file, footer in zip(self.paths, footers, strict=True)
            for group in range(footer.num_row_groups)
        ]
        sizes = [
            footer.row_group(group).num_rows
            for footer in footers
            for group in range(footer.num_row_groups)
        ]
        # First row of each group over all files, and behind them the number of rows.
        self._starts: list[int] = list(accumulate(sizes, initial=0))

    def _check_columns(self, file: Path, schema: pa.Schema) -> None:
        for name, wanted in zip(self.columns, self._types, strict=True):
            found = schema.field(name).type if name in schema.names else "not there"
            if found != wanted:
                raise ValueError(
                    f"column {name!r} is {wanted} in {self.paths[0].name}, but {found} in "
                    f"{file.name}"
                )

    def __len__(self) -> int:
        """Return the number of rows of all files."""
        return self._starts[-1]

    @functools.cached_property
    def width(self) -> int:
        """D, the length of the first row's features; 1 where no row has any."""
        widths = (feature_width(table.column("features")) for table in self._tables(0))
        return next((width for width in widths if width), 1)

    def _reader(self, start: int) -> Callable[[range], Block]:
        return rebatched(self._tables(start), self.width)

    def _tables(self, start: int) -> Iterator[pa.Table]:
        """Decode the rows from `start` on, in pieces as they lie in the files."""
        first = bisect.bisect_right(self._starts, start) - 1
        skip = start - self._starts[first]
        for group in range(first, len(self._groups)):
            for table in self._group_tables(group):
                if skip < len(table):
                    yield table.slice(skip)
                skip = max(0, skip - len(table))

    def _group_tables(self, group: int) -> Iterator[pa.Table]:
        pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
        path, index = self._groups[group]
        left = self._starts[group + 1] - self._starts[group]
        try:
            with parquet.ParquetFile(
                path, page_checksum_verification=True, pre_buffer=False
            ) as opened:
                for piece in opened.iter_batches(
                    _CHUNK_ROWS, row_groups=[index], columns=list(self.columns)
                ):
                    left -= len(piece)
                    yield columns_table(
                        piece.column(self.columns[0]), piece.column(self.columns[1])
                    )
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk or the network failed, not the data: resume when it is back
            reason = f"row group {index} of {path.name}: {' '.join(str(error).split())}"
            for done in range(0, left, _CHUNK_ROWS):
                rows = min(_CHUNK_ROWS, left - done)
                yield columns_table(
                    pa.nulls(rows, self._types[0]), pa.nulls(rows, self._types[1]), reason
                )

    def digest(self) -> str:
        """Hash the name, size and time of change of every file."""
        return files_digest(self.paths)

    def describe(self) -> dict[str, Any]:
        """Return the kind, the number of files, the columns and the width."""
        return {
            "kind": "parquet",
            "files": len(self.paths),
            "rows": len(self),
            "feature_column": self.columns[0],
            "label_column": self.columns[1],
            "shape": [self.width],
        }


def _footer(path: Path) -> Any:
    pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
    try:
        return parquet.read_metadata(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from None
