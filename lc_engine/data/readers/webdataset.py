"""WebDataset: images and their labels in tar files, read in place and never unpacked."""

from __future__ import annotations

import bisect
import functools
import json
import logging
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.faults import patiently
from lc_engine.data.ids import id_of_name
from lc_engine.data.readers.images import decode_image
from lc_engine.data.readers.parquet import groups_of
from lc_engine.data.readers.rows import RowSource, describe_transform
from lc_engine.data.readers.tar_index import IMAGE, JSON, LABEL, NAMED, index_tar
from lc_engine.data.readers.unreadable_files import open_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lc_engine.data.readers.rows import Load, Transform

_log = logging.getLogger(__name__)


class WebDatasetSource(RowSource):
    """Samples of tar files: adjacent members with one name and several extensions.

    The image is the member with an image's extension; the label is the integer in `.cls`, or a
    field of `.json`. A row's id is "file.tar/name" (`id_of_name`). A file that is damaged, or with
    a member that is a link or points outside its folder, or with keys that are not unique and
    adjacent, is left out and listed in `unreadable`.

    Args:
        path: a `.tar`, or a folder whose `*.tar` files are read in the order of their names.
        image_field: extension of the image in each sample, such as "jpg"; None takes the only one
            that is an image's, before one with a further dot (`0.jpg` before `0.seg.png`).
        label_column: the field of `.json`; None takes "label".
        transform: from an image to the model's input tensor.
        num_workers: decoding threads.

    Raises:
        ValueError: no readable file.
    """

    def __init__(
        self,
        path: Path,
        image_field: str | None,
        label_column: str | None,
        transform: Transform | None,
        num_workers: int | None,
    ) -> None:
        require("PIL.Image", "vision")
        found = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        opened, self.unreadable, states = open_readable(
            found, functools.partial(index_tar, image_field=image_field)
        )
        super().__init__(transform, num_workers, None, states)
        self.paths = list(opened)
        self.image_field = image_field
        self.label_field = label_column or "label"
        self._indices = list(opened.values())
        # First row of each file, then the number of rows.
        self._starts = list(accumulate((len(index.keys) for index in self._indices), initial=0))
        self.other_members = self._other_members()
        if self.other_members:
            _log.warning(
                "%d members have no extension: %s",
                self.other_members["count"],
                ", ".join(self.other_members["first"]),
            )

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._starts[-1]

    def _other_members(self) -> dict[str, Any]:
        """Return how many members belong to no sample, and the first of them."""
        first = [
            f"{id_of_name(path.name)}/{name}"
            for path, index in zip(self.paths, self._indices, strict=True)
            for name in index.first_others
        ]
        count = sum(index.others for index in self._indices)
        return {"count": count, "first": first[:NAMED]} if count else {}

    def _locate(self, row: int) -> tuple[int, int]:
        """Return the file of a row, and its sample there."""
        file = bisect.bisect_right(self._starts, row) - 1
        return file, row - self._starts[file]

    def samples_of(self, rows: np.ndarray) -> Iterator[tuple[Path, set[str]]]:
        """Yield each file that has any of the rows (M,), ascending, and the ids of its samples."""
        for file, path in enumerate(self.paths):
            start, stop = self._starts[file : file + 2]
            first, last = np.searchsorted(rows, [start, stop])
            if last > first:
                keys = self._indices[file].keys[rows[first:last] - start]
                yield path, {key.decode() for key in keys.tolist()}

    def _ids(self, rows: range) -> np.ndarray:
        names = [
            f"{id_of_name(self.paths[file].name)}/{self._indices[file].keys[sample].decode()}"
            for file, sample in map(self._locate, rows)
        ]
        return np.array(names, dtype=np.str_)

    def _loads(self, rows: range) -> Iterator[Load]:
        return (functools.partial(self._load, row) for row in rows)

    def _load(self, row: int) -> tuple[Callable[[], Any], Any]:
        file, sample = self._locate(row)
        path, places = self.paths[file], self._indices[file].members[sample].tolist()
        parts = patiently(functools.partial(_read_members, path, places), path)

        def decode() -> Any:
            content = parts[IMAGE]
            if content is None:
                raise ValueError(self._indices[file].without_image[sample])
            return decode_image(content)

        return decode, _label(parts[LABEL], parts[JSON], self.label_field)

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were; see `FileStates.check`."""
        self.states.check(range(*groups_of(self._starts, rows)))

    def digest(self) -> str:
        """Hash the name, size and modification time of every file that is read."""
        return self.states.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the files, the rows, the transform, and what is not read."""
        optional = {
            "image_field": self.image_field,
            "refused": self.unreadable,
            "other_members": self.other_members,
        }
        return {
            "kind": "webdataset",
            "files": len(self.paths),
            "rows": len(self),
            "label_field": self.label_field,
            "transform": describe_transform(self.transform),
        } | {name: value for name, value in optional.items() if value}


def _read_members(path: Path, places: list[tuple[int, int]]) -> list[bytes | None]:
    """Read members of a tar by offset and size; None where the size is negative."""
    parts: list[bytes | None] = []
    with path.open("rb") as opened:
        for offset, size in places:
            opened.seek(offset)
            parts.append(None if size < 0 else opened.read(size))
    return parts


def _label(number: bytes | None, fields: bytes | None, name: str) -> Any:
    """Return the label as written; the caller checks that it is an integer."""
    if number is not None:
        text = number.decode("utf-8", "replace").strip()
        try:
            return int(text)
        except ValueError:
            return text
    if fields is not None:
        try:
            return json.loads(fields).get(name)
        except (ValueError, AttributeError):
            return fields
    return None
