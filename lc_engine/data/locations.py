"""Locations of data: a local path, or a URL that fsspec knows (s3://, gs://, …)."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from lc_engine._util.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator


def to_path(location: Any) -> Path:
    """Return a path, or for a URL a `UPath`, which behaves like one.

    Raises:
        MissingExtraError: a URL, and universal-pathlib is not installed.
    """
    if is_remote(location):
        return cast("Path", location)
    if isinstance(location, str) and "://" in location:
        return cast("Path", require("upath", "remote").UPath(location))
    return Path(location)


def is_remote(location: Any) -> bool:
    """Return whether a location is the path that `to_path` returns for a URL."""
    return type(location).__module__.partition(".")[0] == "upath"


def check_outside(out: Path, data: Any) -> None:
    """Refuse to write into the folder that holds the data.

    Args:
        out: the file or folder to write.
        data: a location; anything else has no folder.

    Raises:
        ValueError: `out` is the folder of the data, or inside it.
    """
    if not isinstance(data, str | os.PathLike) or "://" in str(data):
        return
    folder = Path(data).resolve()
    if folder.is_dir() and out.resolve().is_relative_to(folder):
        raise ValueError(
            f"out: {out} is inside the data, {data}, and would be read as data the next time: "
            "choose a path outside that folder"
        )


@contextmanager
def for_arrow(path: Path) -> Iterator[Path | IO[bytes]]:
    """Yield what Arrow reads: a local path as it is, a remote one as an open file."""
    with ExitStack() as stack:
        yield stack.enter_context(path.open("rb")) if is_remote(path) else path
