"""WebDataset: images and their labels in tar files, read in place and never unpacked."""

from __future__ import annotations

import bisect
import functools
import json
import tarfile
from itertools import accumulate
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.readers.arrays import files_digest
from lc_engine.data.readers.image_files import SUFFIXES
from lc_engine.data.readers.images import decode_image
from lc_engine.data.readers.rows import RowSource, describe_transform
from lc_engine.data.readers.unreadable_files import open_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lc_engine.data.readers.rows import Load, Transform

_IMAGE, _LABEL, _JSON = range(3)
# Offset and size where a sample has no such member.
_MISSING: Final = (0, -1)


class _Index(NamedTuple):
    """The samples of one tar.

    Attributes:
        keys: (S,) names without extensions, UTF-8.
        members: (S, 3, 2) offset and size of the image, the `.cls` and the `.json`; size −1 where
            there is none.
    """

    keys: np.ndarray
    members: np.ndarray


class WebDatasetSource(RowSource):
    """Samples of tar files: consecutive members with one name and several extensions.

    The image is the member with an image's extension; the label is the integer in `.cls`, or a
    field of `.json`. A row's id is "file.tar/name". A file that is damaged, or with a member that
    is a link or points outside its folder, is left out and listed in `unreadable`.

    Args:
        path: a `.tar`, or a folder whose `*.tar` files are read in the order of their names.
        label_column: the field of `.json`; None takes "label".
        transform: from an image to the model's input tensor.
        num_workers: decoding threads.

    Raises:
        ValueError: no readable file.
    """

    def __init__(
        self,
        path: Path,
        label_column: str | None,
        transform: Transform | None,
        num_workers: int | None,
    ) -> None:
        require("PIL.Image", "vision")
        super().__init__(transform, num_workers, None)
        found = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        opened, self.unreadable = open_readable(found, _index)
        self.paths = list(opened)
        self.label_field = label_column or "label"
        self._indices = list(opened.values())
        # First row of each file, then the number of rows.
        self._starts = list(accumulate((len(index.keys) for index in self._indices), initial=0))

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._starts[-1]

    def _locate(self, row: int) -> tuple[int, int]:
        """Return the file of a row, and its sample there."""
        file = bisect.bisect_right(self._starts, row) - 1
        return file, row - self._starts[file]

    def _ids(self, rows: range) -> np.ndarray:
        names = [
            f"{self.paths[file].name}/{self._indices[file].keys[sample].decode()}"
            for file, sample in map(self._locate, rows)
        ]
        return np.array(names, dtype=np.str_)

    def _loads(self, rows: range) -> Iterator[Load]:
        return (functools.partial(self._load, row) for row in rows)

    def _load(self, row: int) -> tuple[Callable[[], Any], Any]:
        file, sample = self._locate(row)
        parts: list[bytes | None] = []
        with self.paths[file].open("rb") as opened:
            for offset, size in self._indices[file].members[sample].tolist():
                opened.seek(offset)
                parts.append(None if size < 0 else opened.read(size))

        def decode() -> Any:
            content = parts[_IMAGE]
            if content is None:
                raise ValueError("the sample has no image")
            return decode_image(content)

        return decode, _label(parts[_LABEL], parts[_JSON], self.label_field)

    def digest(self) -> str:
        """Hash the name, size and modification time of every file that is read."""
        return files_digest(self.paths)

    def describe(self) -> dict[str, Any]:
        """Return the kind, the files, the rows and the transform."""
        return {
            "kind": "webdataset",
            "files": len(self.paths),
            "rows": len(self),
            "label_field": self.label_field,
            "transform": describe_transform(self.transform),
        } | ({"refused": self.unreadable} if self.unreadable else {})


def _index(path: Path) -> _Index:
    """Return the samples of a tar, found by its headers.

    Raises:
        ValueError: not an uncompressed tar, a damaged one, or one with an unsafe member.
    """
    keys: list[bytes] = []
    members: list[list[tuple[int, int]]] = []
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as opened:
            while (member := opened.next()) is not None:
                opened.members = []  # type: ignore[attr-defined]  # it would keep every header
                if member.isdir():
                    continue
                _check_safe(path, member)
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{folder}/{stem}".lstrip("/").encode()
                if not keys or keys[-1] != key:
                    keys.append(key)
                    members.append([_MISSING] * 3)
                kind = _kind(extension.lower())
                if kind is not None:
                    members[-1][kind] = (member.offset_data, member.size)
            file.seek(opened.offset)
            if any(file.read(tarfile.BLOCKSIZE)):  # tarfile takes a bad header for the end
                raise ValueError(f"{path} is damaged at byte {opened.offset:,}")
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an uncompressed .tar: {error}") from None
    return _Index(np.array(keys, dtype=np.bytes_), np.array(members, np.int64).reshape(-1, 3, 2))


def _check_safe(path: Path, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"{path} is not read: its member {member.name!r} lies outside its folder")
    if not member.isreg():
        raise ValueError(f"{path} is not read: its member {member.name!r} is not a regular file")


def _kind(extension: str) -> int | None:
    if f".{extension}" in SUFFIXES:
        return _IMAGE
    return {"cls": _LABEL, "json": _JSON}.get(extension)


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
