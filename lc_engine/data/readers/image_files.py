"""The files of an image folder: images by suffix or content, links followed, the others named."""

from __future__ import annotations

import errno
import os
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from lc_engine.data.ids import id_of_name

if TYPE_CHECKING:
    from pathlib import Path

# Suffixes of images, those that Pillow cannot decode too: such a file is a row with a status.
SUFFIXES = frozenset(
    [
        ".apng",
        ".arw",
        ".avif",
        ".avifs",
        ".bmp",
        ".cr2",
        ".cr3",
        ".cur",
        ".dds",
        ".dib",
        ".dng",
        ".exr",
        ".gif",
        ".hdr",
        ".heic",
        ".heif",
        ".icns",
        ".ico",
        ".j2c",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpc",
        ".jpe",
        ".jpeg",
        ".jpf",
        ".jpg",
        ".jpx",
        ".jxl",
        ".mpo",
        ".nef",
        ".orf",
        ".pbm",
        ".pcx",
        ".pfm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".psd",
        ".qoi",
        ".raf",
        ".ras",
        ".rw2",
        ".sgi",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
        ".xbm",
        ".xpm",
    ]
)
# What file managers leave behind.
_IGNORED = frozenset({"desktop.ini", "thumbs.db"})
_FOLDER, _FILE, _DANGLING = "folder", "file", "is a link to nothing"
_HEAD_BYTES = 16
_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"\0\0\0\x0cjP  ",  # JPEG 2000
    b"\xff\x4f\xff\x51",
    b"\xff\x0a",  # JPEG XL
    b"\0\0\0\x0cJXL ",
    b"qoif",
)
_ISO_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"})


class Listing(NamedTuple):
    """Files below a folder, as paths relative to the root.

    Attributes:
        images: the images, sorted.
        others: files that are no images, sorted.
        refused: id of a file or folder that cannot be read -> why.
    """

    images: list[str]
    others: list[str]
    refused: dict[str, str]


def class_folders(root: Path) -> tuple[list[str], Listing]:
    """Return the class folders of a root, sorted by name, and what lies beside them.

    Hidden entries are skipped. A link to a folder is a class, as in torchvision.
    """
    classes: list[str] = []
    beside = Listing([], [], {})
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            kind = _kind(entry)
            if kind == _FOLDER:
                classes.append(entry.name)
            elif kind != _FILE:
                _refuse(beside, entry.name, kind)
            elif entry.name.lower() not in _IGNORED:
                beside.others.append(entry.name)
    return sorted(classes), beside


def flat_images(root: Path, names: list[str]) -> Listing:
    """Return which of the files that lie in a folder itself are images.

    Args:
        root: the folder.
        names: of the files in it, in any order.
    """
    found = Listing([], [], {})
    for name in sorted(names):
        is_image = PurePath(name).suffix.lower() in SUFFIXES or _may_be_image(root / name)
        (found.images if is_image else found.others).append(name)
    return found


def list_class(root: Path, name: str) -> Listing:
    """List the files of a class folder and of the folders in it.

    Links to folders are followed, except to one that holds the link. A file is an image if its
    suffix or its first bytes are an image's.

    Raises:
        OSError: the disk failed; a folder without permission is in `refused` instead.
    """
    found = Listing([], [], {})
    _list(root, name, found, frozenset({_identity(root)}))
    found.images.sort()
    found.others.sort()
    if found.others and not found.images:
        row, count = id_of_name(name), len(found.others)
        found.refused[row] = (
            f"class folder {row} holds no image, but {count} other file{'s' * (count > 1)}, such "
            f"as {id_of_name(found.others[0])}"
        )
    return found


def _list(root: Path, folder: str, found: Listing, above: frozenset[tuple[int, int]]) -> None:
    path = root / folder
    try:
        here = _identity(path)
        if here in above:
            return _refuse(found, folder, "links to a folder that holds it")
        with os.scandir(path) as listed:
            entries = list(listed)
    except PermissionError as error:
        return _refuse(found, folder, f"cannot be listed: {error.strerror}")
    for entry in entries:
        name = f"{folder}/{entry.name}"
        kind = _kind(entry)
        suffix = PurePath(entry.name).suffix.lower()
        if kind == _FOLDER:
            _list(root, name, found, above | {here})
        elif suffix in SUFFIXES and kind in (_FILE, _DANGLING):
            found.images.append(name)
        elif entry.name.startswith(".") or entry.name.lower() in _IGNORED:
            continue
        elif kind != _FILE:
            _refuse(found, name, kind)
        elif _may_be_image(root / name):
            found.images.append(name)
        else:
            found.others.append(name)
    return None


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _kind(entry: os.DirEntry[str]) -> str:
    """Return whether an entry is a folder or a file once links are followed, else why neither."""
    try:
        if entry.is_dir():
            return _FOLDER
        if entry.is_file():
            return _FILE
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ELOOP):
            raise
        return f"is a link that cannot be followed: {error.strerror}"
    return _DANGLING if entry.is_symlink() else "is not a regular file"


def _refuse(found: Listing, name: str, reason: str) -> None:
    row = id_of_name(name)
    found.refused[row] = f"{row} {reason}"


def _may_be_image(path: Path) -> bool:
    """Return whether the first bytes are an image's; True if they must not be read."""
    try:
        with path.open("rb") as file:
            return is_image_content(file.read(_HEAD_BYTES))
    except PermissionError:
        return True


def is_image_content(head: bytes) -> bool:
    """Return whether a file that begins with these 16 bytes is an image."""
    return (
        head.startswith(_SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in _ISO_BRANDS)
        or (head[:2] == b"BM" and head[6:10] == bytes(4) and len(head) > 14)
        or (head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace())
    )
