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

    A new name of the file (a hard link, as `prune` makes) and new rights set the time of change
    too, and leave the content. So it does not count where they explain it: the file is still the
    same one, and has or had several names, or its rights are others. The inode counts only then,
    since some file systems in user space number a file anew at any time.

    Attributes:
        size: bytes.
        written: time of writing, in ns.
        changed: time of any change, in ns.
        inode: hash of device and inode.
        names: number of hard links.
        rights: hash of mode, owner and group.
    """

    size: int
    written: int
    changed: int
    inode: int
    names: int
    rights: int

    def difference(self, now: FileState) -> str | None:
        """Return in words why the file may hold something else now; None if it does not."""
        if self.size != now.size:
            return f"size {self.size:,} -> {now.size:,} bytes"
        if self.written != now.written:
            return "written again"
        if self.changed == now.changed:
            return None
        if self.inode != now.inode:
            return "replaced by another file"
        renamed = self.names != now.names or self.names > 1
        return None if renamed or self.rights != now.rights else "its time of change"


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
        times = self._states[:, :2].tolist()
        for name, (size, written) in zip(self._names, times, strict=True):
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
            difference = was.difference(now)
            if difference is not None:
                raise DataChangedError(
                    f"{path} has changed since the run opened it ({difference}): no "
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
        if not listed:
            raise FileNotFoundError(f"{path}: no such file") from None
    except OSError:
        pass  # below, with patience
    return _state(patiently(path.stat, path, listed=listed)), False


def _state(found: os.stat_result) -> FileState:
    def get(name: str) -> int:
        return int(getattr(found, name, 0))  # object stores have few of them

    return FileState(
        found.st_size,
        found.st_mtime_ns,
        get("st_ctime_ns"),
        hash((get("st_dev"), get("st_ino"))),  # an inode may take 64 bits
        get("st_nlink"),
        hash((get("st_mode"), get("st_uid"), get("st_gid"))),
    )
