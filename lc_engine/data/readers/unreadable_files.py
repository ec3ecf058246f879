"""Files of a data set that cannot be opened: left out and named, not the end of the job."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lc_engine.data.batch import Source

_Opened = TypeVar("_Opened")
_log = logging.getLogger(__name__)


def open_readable(
    paths: Sequence[Path], open_one: Callable[[Path], _Opened]
) -> tuple[dict[Path, _Opened], dict[str, str]]:
    """Open the files of a data set.

    Args:
        paths: the files.
        open_one: opens one of them; a ValueError of its says what is wrong with the file.

    Returns:
        What was opened by file, and the reason by name for each file that was refused.

    Raises:
        ValueError: no file could be opened; the text is that of the first one.
    """
    opened: dict[Path, _Opened] = {}
    refused: dict[str, str] = {}
    first: ValueError | None = None
    for path in paths:
        try:
            opened[path] = open_one(path)
        except ValueError as error:
            first = first or error
            refused[path.name] = str(error)
    if first is not None and not opened:
        raise first
    for reason in refused.values():
        _log.warning("left out: %s", reason)
    return opened, refused


def unreadable_files(source: Source) -> dict[str, str]:
    """Return name -> reason of the files of a source that are left out."""
    described: dict[str, Any] = source.describe()
    return dict(described.get("refused", {}))
