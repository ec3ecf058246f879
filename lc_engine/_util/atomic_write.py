"""Atomic file writes: temporary file, fsync, rename."""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

# Errors that only writing has, whose text lacks the file's name.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Replace a file by what the context writes to the temporary path that it yields.

    If the context raises, the file stays as it was.
    """
    with _temporary(path) as temporary:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
    _fsync(path.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """Replace a text file, in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def atomic_write_npy(path: Path, values: np.ndarray) -> None:
    """Replace a `.npy` file."""
    # An open file, since `np.save` gives a path its suffix.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def write_once(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file unless it exists; of several processes that do so at once, the first wins.

    Args:
        path: the file.
        write: writes the contents to the path that it is given.
    """
    try:
        with _temporary(path) as temporary:
            write(temporary)
            _fsync(temporary)
            # A link fails if the file exists; a rename would replace what others already read.
            with suppress(FileExistsError):
                path.hardlink_to(temporary)
    except FileNotFoundError:
        # Another process, whose file is there, has ended the run and cleaned up.
        if not path.exists():
            raise
    _fsync(path.parent)


class GrowingFile:
    """A file that is written piece by piece and takes its place only once it is complete.

    Args:
        path: where it will be; until `commit` whatever is there stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = _unique(path)
        self._file = self._temporary.open("w+b")

    def write(self, content: bytes | memoryview) -> None:
        """Append bytes."""
        with _named(self._path):
            self._file.write(content)

    def rewind(self) -> BinaryIO:
        """Return the file, open for reading and writing from its beginning."""
        self._file.seek(0)
        return self._file

    def commit(self) -> None:
        """Put the file in its place.

        Raises:
            FileNotFoundError: another process deleted what was written so far.
        """
        try:
            with _named(self._path):
                self._file.close()
                _fsync(self._temporary)
            self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)
        _fsync(self._path.parent)

    def discard(self) -> None:
        """Delete what was written so far; after `commit` nothing is."""
        with suppress(OSError):  # what cannot be flushed is not wanted
            self._file.close()
        self._temporary.unlink(missing_ok=True)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a unique path beside `path`, deleted at the end."""
    temporary = _unique(path)
    try:
        with _named(path):
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give an error of a full disk the name of the file that is written."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _unique(path: Path) -> Path:
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def _fsync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power failure."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder, and commits names on its own
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
