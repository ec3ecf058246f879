"""Parquet with a column of encoded images: bytes, or the struct that `datasets` writes."""

from __future__ import annotations

import functools
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.readers.columns import (
    choose_image_column,
    choose_label_column,
    is_feature_type,
    is_image_type,
)
from lc_engine.data.readers.images import decode_image, encoded_image
from lc_engine.data.readers.parquet import ParquetFiles, ParquetSource
from lc_engine.data.readers.records import RowError, row_values
from lc_engine.data.readers.rows import RowSource, describe_transform
from lc_engine.data.targets import OWN_TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lc_engine.data.readers.rows import Load, Transform
    from lc_engine.data.targets import LabelKind

# Images read at a time: some tens of megabytes at a few hundred kilobytes each.
_CHUNK_ROWS = 128


def open_parquet(
    path: Path,
    feature_column: str | None,
    label_column: str | None,
    transform: Transform | None,
    num_workers: int | None,
    label_kind: LabelKind = "class",
) -> ParquetSource | ParquetImageSource:
    """Open Parquet files with features or with images.

    Args:
        path: a file, or a folder whose `*.parquet` files are read in the order of their names.
        feature_column: the column of number lists or images; None takes the only one.
        label_column: its name; None takes "label", else the only integer column.
        transform: from an image to the model's input tensor.
        num_workers: decoding threads.
        label_kind: what the labels are; votes of images are lists of numbers.

    Raises:
        ValueError: as `ParquetSource`.
    """
    files = ParquetFiles(path, _CHUNK_ROWS)
    kinds = {field.name: field.type for field in files.schema}
    if feature_column in kinds:
        images = is_image_type(kinds[feature_column])
    else:
        features = label_kind not in OWN_TARGETS and any(map(is_feature_type, kinds.values()))
        images = not features and any(map(is_image_type, kinds.values()))
    if not images:
        return ParquetSource(path, feature_column, label_column)
    return ParquetImageSource(
        files, feature_column, label_column, transform, num_workers, label_kind
    )


class ParquetImageSource(RowSource):
    """Images in Parquet; a broken one is the status of its row.

    Rows of a row group that cannot be decoded are unreadable; the others are read.
    """

    reads_targets = True

    def __init__(
        self,
        files: ParquetFiles,
        image_column: str | None,
        label_column: str | None,
        transform: Transform | None,
        num_workers: int | None,
        label_kind: LabelKind = "class",
    ) -> None:
        require("PIL.Image", "vision")
        super().__init__(transform, num_workers, None)
        self.files, schema = files, files.schema
        labels = None
        if label_kind != "none" or label_column is not None:
            labels = choose_label_column(label_column, schema, label_kind)
        files.use((choose_image_column(image_column, schema), labels))
        # The reader by the row it stopped at: entering a row group in the middle would decode all
        # rows before.
        self._idle: dict[int, Iterator[Load]] = {}

    def __len__(self) -> int:
        """Return the number of rows of all files."""
        return len(self.files)

    def _ids(self, rows: range) -> np.ndarray:
        return np.arange(rows.start, rows.stop, dtype=np.int64)

    def _loads(self, rows: range) -> Iterator[Load]:
        reader = self._idle.pop(rows.start, None) or self._read(rows.start)
        yield from islice(reader, len(rows))
        self._idle = {rows.stop: reader}

    def _read(self, start: int) -> Iterator[Load]:
        for table in self.files.tables(start):
            for row in row_values(table):
                yield functools.partial(_image_and_label, row)

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were; see `FileStates.check`."""
        self.files.check_unchanged(rows)

    def digest(self) -> str:
        """Hash the name, size and modification time of every file."""
        return self.files.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the files, the columns and the transform."""
        return {
            "kind": "parquet_images",
            **self.files.describe(),
            "transform": describe_transform(self.transform),
        }


def _image_and_label(row: dict[str, Any] | RowError) -> tuple[Callable[[], Any], Any]:
    if isinstance(row, RowError):
        raise row

    def decode() -> Any:
        if row["damage"] is not None:
            raise ValueError(row["damage"])
        return decode_image(encoded_image(row["features"]))

    return decode, row["labels"]
