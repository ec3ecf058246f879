"""The Parquet files of a score table: opened by their footers, read a column at a time."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lc_engine._util.differences import differences
from lc_engine._util.extras import require
from lc_engine.data.features import Features, features_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

VERSION = 1
METADATA_KEY = b"lc_engine"
COLUMNS = ("id", "label", "lc", "loss", "lc_std", "status", "detail")
PART_PATTERN = "part-*-of-*.parquet"

# Rows read at a time: a few megabytes per column.
_CHUNK_ROWS = 1 << 18


def table_metadata(schema: pa.Schema) -> dict[str, Any]:
    """Return what a score table's schema says of its run.

    Raises:
        ValueError: a column is missing, or lc_engine did not write the table.
    """
    missing = set(COLUMNS) - set(schema.names)
    if missing:
        raise ValueError(
            f"not a score table: column {', '.join(sorted(missing))} is missing; it has "
            f"{', '.join(schema.names)}"
        )
    encoded = (schema.metadata or {}).get(METADATA_KEY)
    if encoded is None:
        raise ValueError("not a score table: its schema has no lc_engine metadata")
    metadata: dict[str, Any] = json.loads(encoded)
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"the score table has version {metadata.get('version')}, this lc_engine reads "
            f"version {VERSION}: read it with the lc_engine that wrote it or a newer one "
            "(pip install --upgrade lc_engine), or score again"
        )
    return metadata


class TableFiles:
    """The parts of a score table in files; only the columns that are asked for are read.

    Args:
        paths: the parts, in order.

    Attributes:
        schema: the columns, as Arrow.

    Raises:
        ValueError: a file that is not a score table, or parts of different runs.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        # A table is read long after it was opened, perhaps in another working directory.
        self._paths = [path.absolute() for path in paths]
        self.schema, rows = _footer(self._paths[0])
        self._rows = [rows]
        metadata = _metadata(self._paths[0], self.schema)
        for path in self._paths[1:]:
            schema, rows = _footer(path)
            self._rows.append(rows)
            difference = differences(metadata, _metadata(path, schema))
            if not difference and not schema.equals(self.schema):
                difference = f"columns {self.schema.names} -> {schema.names}"
            if difference:
                raise ValueError(f"{self._paths[0]} and {path} are of different runs: {difference}")

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return sum(self._rows)

    @property
    def has_features(self) -> bool:
        """Whether features lie beside a part."""
        return any(features_path(path).exists() for path in self._paths)

    def features(self) -> Features:
        """Open the features beside the parts.

        Raises:
            ValueError: those of a part are missing.
        """
        return Features([features_path(path) for path in self._paths], self._rows)

    def select(self, names: list[str]) -> pa.Table:
        """Return some columns of all rows."""
        pa = require("pyarrow", "table")
        empty = self.schema.empty_table().select(names)  # has the schema where no file has a row
        return pa.concat_tables([empty, *self.chunks(names)])

    def chunks(self, names: list[str]) -> Iterator[pa.Table]:
        """Return some columns, a few rows of a file at a time."""
        pa = require("pyarrow", "table")
        for path in self._paths:
            with _opened(path) as opened:
                for batch in opened.iter_batches(_CHUNK_ROWS, columns=names):
                    chunk = pa.Table.from_batches([batch]).select(names)
                    yield chunk.replace_schema_metadata(opened.schema_arrow.metadata)


def is_intact(path: Path) -> bool:
    """Return whether all of a file can be read, checksums included."""
    try:
        with _opened(path) as opened:
            for _ in opened.iter_batches(_CHUNK_ROWS):
                pass
    except ValueError:
        return False
    return True


def finished_parts(path: Path) -> list[Path]:
    """Return the files of a table: a single file, or all parts of a finished run's folder.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: a folder without parts, or with some of its parts missing.
    """
    if not path.exists():
        raise FileNotFoundError(f"no score table at {path}: the file or folder does not exist")
    if path.is_file():
        return [path]
    parts = sorted(path.glob(PART_PATTERN))
    if not parts:
        inside = path / "scores"  # of a folder that prune wrote
        hint = f": try {inside}" if [*inside.glob(PART_PATTERN)] else ""
        raise ValueError(f"{path} holds no scores, as it has no {PART_PATTERN}{hint}")
    total = int(parts[0].stem.rpartition("-")[2])
    if len(parts) != total:
        raise ValueError(
            f"{path} holds {len(parts)} of {total} parts: the run has not finished; "
            "start it again with the same arguments and it continues"
        )
    return parts


def _metadata(path: Path, schema: pa.Schema) -> dict[str, Any]:
    try:
        return table_metadata(schema)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _footer(path: Path) -> tuple[pa.Schema, int]:
    """Return the schema of a file, with its metadata, and the number of its rows."""
    with _opened(path) as opened:
        return opened.schema_arrow, opened.metadata.num_rows


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
    try:
        # One file, not a data set: the folder's name must not become a column.
        with parquet.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        remedy = ""
        if path.match(PART_PATTERN):
            remedy = (
                "; delete it and start the same run again, which scores the rows of this file anew"
            )
        raise ValueError(f"{path} cannot be read as a score table: {error}{remedy}") from None
