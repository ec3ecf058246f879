"""Files that are whole or not there: written aside, flushed to the disk, then named."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def write_aside(path: Path, text: str) -> None:
    """Write a small text file, all or nothing, in place of what was there."""
    with aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)
        temporary.replace(path)
    flush(path.parent)


def publish_first(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file, all or nothing; of processes that do so at once, the first one's stays."""
    with aside(path) as temporary:
        write(temporary)
        flush(temporary)
        # A link, not a rename, which would take the place of what another process already uses.
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
    flush(path.parent)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Give a name beside `path` that no other process uses, gone at the end."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder, and commits names on its own
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
