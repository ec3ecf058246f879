"""Whether data are still what they were when a run opened them: by sizes and times of files."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lc_engine.data.faults import DataChangedError, ReadError, patiently

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lc_engine.data.batch import Source


class FileState(NamedTuple):
    """What changes when a file does; the time of change also where a tool restores that of writing.

    Attributes:
        size: bytes.
        written: time of writing, in ns.
        changed: time of any change, in ns.
    """

    size: int
    written: int
    changed: int


class FileStates:
    """The files of a data set, as they were before anything was read from them.

    The digest is of names, sizes and times of writing, which a copy of the data keeps.

    Args:
        names: of the files, for the digest.
        locate: index -> path.
        listed: see `fault_of`.
    """

    def __init__(
        self, names: Sequence[str], locate: Callable[[int], Path], *, listed: bool = True
    ) -> None:
        self._names, self._locate = names, locate
        self._states = np.empty((len(names), len(FileState._fields)), np.int64)
        self._dangling: set[int] = set()
        for index in range(len(names)):
            state, dangling = _read(locate(index), listed)
            self._states[index] = state
            if dangling:
                self._dangling.add(index)

    @classmethod
    def of(cls, paths: Sequence[Path], *, listed: bool = True) -> FileStates:
        """Return the states of some files, which go by their names without the folder."""
        return cls([path.name for path in paths], lambda index: paths[index], listed=listed)

    def part(self, indices: Sequence[int]) -> FileStates:
        """Return the states of some of the files."""
        part = FileStates([], lambda index: self._locate(indices[index]))
        part._names = [self._names[index] for index in indices]
        part._states = self._states[list(indices)]
        part._dangling = {new for new, old in enumerate(indices) if old in self._dangling}
        return part

    def is_dangling(self, index: int) -> bool:
        """Return whether a file was a link to nothing."""
        return index in self._dangling

    def digest(self) -> str:
        """Hash the names, sizes and times of writing."""
        digest = hashlib.sha256()
        for name, (size, written, _) in zip(self._names, self._states.tolist(), strict=True):
            digest.update(f"{name}\0{size}\0{written}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def check(self, files: range | None = None) -> None:
        """Compare files with what they were; None compares all.

        Raises:
            DataChangedError: naming the first one that differs.
            ReadError: the state of a file cannot be read.
        """
        for index in range(len(self._names)) if files is None else files:
            path = self._locate(index)
            was, now = FileState(*self._states[index].tolist()), _read(path, True)[0]
            if now != was:
                raise DataChangedError(
                    f"{path} has changed since the run opened it ({_difference(was, now)}): no "
                    "part with changed rows was written; put the earlier file back, with its time "
                    "of writing, and the same command continues, or score the data as they are "
                    "now into another folder"
                )


@runtime_checkable
class KnowsFiles(Protocol):
    """A source that can tell whether the files of some of its rows have changed."""

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were; see `FileStates.check`."""
        ...


def check_unchanged(source: Source, rows: range | None = None) -> None:
    """Compare the files of rows of a source with what they were when it was opened.

    Args:
        source: one that reads no files, or does not know them, is taken as unchanged.
        rows: some rows; None compares the files of all.

    Raises:
        DataChangedError: naming the file that differs.
        ReadError: the state of a file cannot be read.
    """
    if isinstance(source, KnowsFiles):
        source.check_unchanged(range(len(source)) if rows is None else rows)


@contextmanager
def unchanged(source: Source, rows: range | None = None) -> Iterator[None]:
    """Refuse what was read in the context if the files of the rows have changed until its end.

    An error that a changed file led to gives way to the name of the file.

    Raises:
        DataChangedError: see `check_unchanged`; ReadError too.
    """
    try:
        yield
    except ReadError:
        raise
    except Exception:
        check_unchanged(source, rows)
        raise
    check_unchanged(source, rows)


def _read(path: Path, listed: bool) -> tuple[FileState, bool]:
    """Return the state of a file, or that of a link to nothing, and whether it is one."""
    try:
        return _state(path.stat()), False
    except FileNotFoundError:
        if path.is_symlink():
            return _state(path.lstat()), True
    except OSError:
        pass  # below, with patience
    return _state(patiently(path.stat, path, listed=listed)), False


def _state(found: os.stat_result) -> FileState:
    changed = getattr(found, "st_ctime_ns", 0)  # object stores have none
    return FileState(found.st_size, found.st_mtime_ns, changed)


def _difference(was: FileState, now: FileState) -> str:
    if was.size != now.size:
        return f"size {was.size:,} -> {now.size:,} bytes"
    return "written again" if was.written != now.written else "its time of change"
