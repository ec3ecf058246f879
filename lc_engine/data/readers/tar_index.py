"""The samples of a WebDataset archive, found by its headers and grouped as `webdataset` does."""

from __future__ import annotations

import logging
import re
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lc_engine.data.ids import id_of_name
from lc_engine.data.readers.image_files import SUFFIXES

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)
IMAGE, LABEL, JSON = range(3)
# Members without an extension that an index names.
NAMED = 10
# Offset and size where a sample has no such member.
_MISSING: Final = (0, -1)
# Members that describe the archive, which `webdataset` skips.
_META = re.compile(r"__[^/]*__(/|\Z)")

_Place = tuple[int, int]


class TarIndex(NamedTuple):
    """The samples of one tar.

    Attributes:
        keys: (S,) ids of the names without extensions, UTF-8.
        members: (S, 3, 2) offset and size of the image, the `.cls` and the `.json`; size −1 where
            there is none.
        without_image: sample -> why it has no image that can be read.
        others: how many members have no extension, so belong to no sample.
        first_others: the first of them.
    """

    keys: np.ndarray
    members: np.ndarray
    without_image: dict[int, str]
    others: int
    first_others: list[str]


class SampleField(NamedTuple):
    """The sample that a member belongs to, and which field of it the member is."""

    key: str
    field: str


def is_skipped(member: tarfile.TarInfo) -> bool:
    """Return whether a member is hidden or describes the archive."""
    name = member.name.rpartition("/")[2]
    return name.startswith(".") or _META.match(member.name) is not None


def sample_of(member: tarfile.TarInfo) -> SampleField | None:
    """Return the sample of a member; None of one that belongs to none, or is a folder."""
    if member.isdir() or is_skipped(member):
        return None
    folder, _, name = member.name.rpartition("/")
    stem, dot, extension = name.partition(".")
    return SampleField(f"{folder}/{stem}".lstrip("/"), extension.lower()) if dot else None


def index_tar(path: Path, image_field: str | None) -> TarIndex:
    """Return the samples of a tar: adjacent members whose names agree up to their first dot.

    Hidden members are skipped, as `datasets` does: macOS writes one beside every file.

    Args:
        path: the archive.
        image_field: extension of the image; None takes the only one that is an image's.

    Raises:
        ValueError: not an uncompressed tar, a damaged one, one with an unsafe member, or one with
            a key whose members are not adjacent or occur twice.
    """
    samples = _Samples(path, image_field)
    others, first_others = 0, []
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as opened:
            while (member := opened.next()) is not None:
                opened.members = []  # type: ignore[attr-defined]  # it would keep every header
                if member.isdir():
                    continue
                _check_safe(path, member)
                if is_skipped(member):
                    continue
                sample = sample_of(member)
                if sample is None:
                    others += 1
                    if others <= NAMED:
                        first_others.append(id_of_name(member.name))
                    continue
                samples.add(sample.key, sample.field, member)
            file.seek(opened.offset)
            end = file.read(tarfile.BLOCKSIZE)
            if any(end):  # tarfile takes a bad header for the end
                raise ValueError(f"{path} is damaged at byte {opened.offset:,}")
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an uncompressed .tar: {error}") from None
    index = samples.indexed(others, first_others)
    if not end:
        _log.warning(
            "%s has no end-of-archive block after its %d samples: it may be cut short",
            path,
            len(index.keys),
        )
    return index


class _Samples:
    """The samples of an archive while its members are read in order."""

    def __init__(self, path: Path, image_field: str | None) -> None:
        self.path = path
        self.image_field = None if image_field is None else image_field.lower().lstrip(".")
        self.keys: dict[str, None] = {}
        self.members: list[list[_Place]] = []
        self.without_image: dict[int, str] = {}
        self._key: str | None = None
        self._fields: dict[str, _Place] = {}

    def add(self, key: str, field: str, member: tarfile.TarInfo) -> None:
        if key != self._key:
            self._finish()
            if key in self.keys:
                raise ValueError(self._ambiguous(key, field, member))
            self._key = key
        elif field in self._fields:
            raise ValueError(
                f"{self.path} is not read: sample {key!r} has two members {member.name!r}: remove "
                "one, or rename one sample"
            )
        self._fields[field] = (member.offset_data, member.size)

    def _ambiguous(self, key: str, field: str, member: tarfile.TarInfo) -> str:
        """Return what is wrong with a key that comes back after another one."""
        places = self.members[list(self.keys).index(key)]
        kinds = {"cls": LABEL, "json": JSON}
        kind = IMAGE if _is_image_field(field) else kinds.get(field)
        if kind is not None and places[kind] != _MISSING:
            return (
                f"{self.path} is not read: sample {key!r} occurs twice, again at {member.name!r}: "
                "rename or remove one"
            )
        return (
            f"{self.path} is not read: the members of sample {key!r} are not adjacent "
            f"({member.name!r} comes after those of another sample): sort the archive by name, as "
            "tar --sort=name does"
        )

    def _finish(self) -> None:
        if self._key is None:
            return
        fields = self._fields
        image, reason = self._image()
        if reason:
            self.without_image[len(self.members)] = reason
        # The label of `0.rgb.png` may be in `0.cls` or in `0.rgb.cls`.
        prefix = "" if image is None else image.rpartition(".")[0]
        label, described = (
            fields.get(kind) or fields.get(f"{prefix}.{kind}", _MISSING) for kind in ("cls", "json")
        )
        self.members.append([_MISSING if image is None else fields[image], label, described])
        self.keys[self._key] = None
        self._fields = {}

    def _image(self) -> tuple[str | None, str]:
        """Return the field of the image, or why there is none."""
        fields = self._fields
        if self.image_field is not None:
            if self.image_field in fields:
                return self.image_field, ""
            return None, f"the sample has no member {self.image_field}; it has {_few(list(fields))}"
        images = [field for field in fields if _is_image_field(field)]
        # Of `0.jpg` and `0.seg.png` the image is the first, the other a mask or the like.
        images = [field for field in images if "." not in field] or images
        if len(images) == 1:
            return images[0], ""
        if not images:
            return None, "the sample has no image"
        hint = "; a key ends at the first dot of a name" if "." in images[0] else ""
        return None, (
            f"the sample has {len(images)} images ({_few(images)}): keep one, or name one as "
            f"feature_column{hint}"
        )

    def indexed(self, others: int, first_others: list[str]) -> TarIndex:
        self._finish()
        keys = [id_of_name(key).encode() for key in self.keys]
        return TarIndex(
            np.array(keys, dtype=np.bytes_),
            np.array(self.members, np.int64).reshape(-1, 3, 2),
            self.without_image,
            others,
            first_others,
        )


def _is_image_field(field: str) -> bool:
    """Return whether the last extension of a field is an image's."""
    return f".{field.rpartition('.')[2]}" in SUFFIXES


def _few(fields: list[str]) -> str:
    return ", ".join(fields[:4]) + (", …" if len(fields) > 4 else "")


def _check_safe(path: Path, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"{path} is not read: its member {member.name!r} lies outside its folder")
    if not member.isreg():
        raise ValueError(f"{path} is not read: its member {member.name!r} is not a regular file")
