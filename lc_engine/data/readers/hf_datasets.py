"""Hugging Face `datasets`: a folder that `save_to_disk` wrote, or a data set in memory."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine._util.json_file import read_json_object
from lc_engine.data.faults import patiently
from lc_engine.data.identity import FileStates
from lc_engine.data.locations import folders_of
from lc_engine.data.readers.arrow_slices import arrow_slices
from lc_engine.data.readers.blocks import Block, BlockSource
from lc_engine.data.readers.columns import (
    choose_feature_column,
    choose_label_column,
    columns_table,
    feature_width,
    rebatched,
)
from lc_engine.data.readers.images import decode_image, encoded_image
from lc_engine.data.readers.parsing import parsing
from lc_engine.data.readers.records import RowError, row_values
from lc_engine.data.readers.rows import RowSource, describe_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from lc_engine.data.readers.rows import Load, Transform
    from lc_engine.data.targets import LabelKind


def is_saved(path: Path) -> bool:
    """Return whether `save_to_disk` wrote this folder."""
    return (path / "state.json").exists() or (path / "dataset_dict.json").exists()


def load(path: Path) -> Any:
    """Load the data set of a folder that `save_to_disk` wrote.

    Raises:
        ValueError: the folder holds several splits, or cannot be read.
    """
    if (path / "dataset_dict.json").exists():
        splits = read_json_object(path / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not splits:
            raise ValueError(f"{path / 'dataset_dict.json'} must name splits, got {splits!r:.80}")
        raise ValueError(
            f"{path} holds the splits {', '.join(map(str, splits))}; pass one of them: "
            f"{path / str(splits[0])}"
        )
    with parsing(path, "a saved data set"):
        return patiently(lambda: require("datasets", "hf").load_from_disk(str(path)), path)


def open_dataset(
    dataset: Any,
    feature_column: str | None,
    label_column: str | None,
    transform: Transform | None,
    num_workers: int | None,
    label_kind: LabelKind = "class",
) -> HFImageSource | HFFeatureSource:
    """Open a `datasets.Dataset` with images (an Image column) or features (number lists).

    Args:
        dataset: the data set.
        feature_column: name of the image or feature column; None takes the only one.
        label_column: name of the label column; None takes "label", else the only ClassLabel.
        transform: from an image to the model's input tensor.
        num_workers: decoding threads.
        label_kind: what the labels are; votes of images are lists of numbers.

    Raises:
        ValueError: a column is missing, or of a wrong type; the text lists the columns.
    """
    hf = require("datasets", "hf")
    features = dataset.features
    named = [name for name, kind in features.items() if isinstance(kind, hf.ClassLabel)]
    if label_column is None and "label" not in features and len(named) == 1:
        label_column = named[0]
    images = [name for name, kind in features.items() if isinstance(kind, hf.Image)]
    if feature_column is None and len(images) == 1:
        feature_column = images[0]
    is_images = feature_column is not None and feature_column in images
    if not is_images or label_kind != "none" or label_column is not None:
        of_images = label_kind if is_images else "class"
        label_column = choose_label_column(label_column, features.arrow_schema, of_images)
    kind = features[label_column] if label_column is not None else None
    classes = list(kind.names) if isinstance(kind, hf.ClassLabel) else None
    if is_images:
        assert feature_column is not None
        raw = dataset.cast_column(feature_column, hf.Image(decode=False)).with_format("arrow")
        return HFImageSource(raw, feature_column, label_column, classes, transform, num_workers)
    assert label_column is not None
    feature_column = choose_feature_column(feature_column, features.arrow_schema)
    return HFFeatureSource(dataset.with_format("arrow"), feature_column, label_column, classes)


class HFImageSource(RowSource):
    """Rows of a data set with an Image column; see `open_dataset`.

    Images are decoded here and not by `datasets`, so that a broken one is the status of its row,
    not an exception for a batch.
    """

    reads_targets = True

    def __init__(
        self,
        raw: Any,
        image_column: str,
        label_column: str | None,
        classes: list[str] | None,
        transform: Transform | None,
        num_workers: int | None,
    ) -> None:
        require("PIL.Image", "vision")
        super().__init__(transform, num_workers, classes, _states(raw))
        self.raw, self.folders = raw, folders_of(raw)
        self.columns = (image_column, label_column)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.raw)

    def _ids(self, rows: range) -> np.ndarray:
        return np.arange(rows.start, rows.stop, dtype=np.int64)

    def _loads(self, rows: range) -> Iterator[Load]:
        for table in arrow_slices(self.raw, rows):
            for row in row_values(table.select(_named(self.columns))):
                yield functools.partial(_image_and_label, row, *self.columns)

    def digest(self) -> str:
        """Hash what identifies the data set; see `_digest`."""
        return _digest(self.raw, self.columns, self.states)

    def describe(self) -> dict[str, Any]:
        """Return the kind, the columns, the classes and the transform."""
        return {
            "kind": "hf_images",
            "rows": len(self),
            "image_column": self.columns[0],
            "label_column": self.columns[1],
            "classes": self.classes,
            "transform": describe_transform(self.transform),
        }


class HFFeatureSource(BlockSource):
    """Rows of a data set with a column of number lists; see `open_dataset`."""

    def __init__(
        self, raw: Any, feature_column: str, label_column: str, classes: list[str] | None
    ) -> None:
        super().__init__(classes, _states(raw))
        self.raw, self.folders = raw, folders_of(raw)
        self.columns = (feature_column, label_column)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.raw)

    @functools.cached_property
    def width(self) -> int:
        """D, the length of most features at the beginning; 1 if no row has any."""
        widths = (feature_width(table.column("features")) for table in self._tables(0))
        return next((width for width in widths if width), 1)

    def _tables(self, start: int) -> Iterator[pa.Table]:
        for table in arrow_slices(self.raw, range(start, len(self))):
            yield columns_table(table.column(self.columns[0]), table.column(self.columns[1]))

    def _reader(self, start: int) -> Callable[[range], Block]:
        return rebatched(self._tables(start), self.width)

    def digest(self) -> str:
        """Hash what identifies the data set; see `_digest`."""
        return _digest(self.raw, self.columns, self.states)

    def describe(self) -> dict[str, Any]:
        """Return the kind, the columns, the classes and the width."""
        return {
            "kind": "hf_features",
            "rows": len(self),
            "feature_column": self.columns[0],
            "label_column": self.columns[1],
            "classes": self.classes,
            "shape": [self.width],
        }


def _image_and_label(
    row: dict[str, Any] | RowError, image: str, label: str | None
) -> tuple[Callable[[], Any], Any]:
    if isinstance(row, RowError):
        raise row
    own = None if label is None else row[label]
    return lambda: decode_image(encoded_image(row[image])), own


def _named(columns: tuple[str, str | None]) -> list[str]:
    return [name for name in columns if name is not None]


def _states(raw: Any) -> FileStates:
    """Return the states of the Arrow files of a data set; none for one in memory."""
    return FileStates.of([Path(entry["filename"]) for entry in raw.cache_files])


def _digest(raw: Any, columns: tuple[str, str | None], states: FileStates) -> str:
    """Hash what identifies the rows.

    With files: their names, sizes and modification times, and the first and the last row, which
    distinguish slices of the same files. Without files, or with reordered rows: all rows.

    The fingerprint of `datasets` is not used: it is random after some operations.
    """
    digest = hashlib.sha256(json.dumps([*columns, len(raw)]).encode())
    rows = raw.select_columns(_named(columns))
    if raw.cache_files and raw._indices is None:
        digest.update(states.digest().encode())
        cuts = [range(min(1, len(raw))), range(max(0, len(raw) - 1), len(raw))]
    else:
        cuts = [range(len(raw))]
    for cut in cuts:
        for table in arrow_slices(rows, cut):
            digest.update(_as_bytes(table))
    return digest.hexdigest()


def _as_bytes(table: pa.Table) -> Any:
    """Return a table as an Arrow stream, without the metadata that `datasets` adds."""
    arrow = require("pyarrow", "hf")
    plain = table.replace_schema_metadata(None).combine_chunks()
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, plain.schema) as stream:
        stream.write_table(plain)
    return sink.getvalue()
