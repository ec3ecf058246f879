"""Unreadable files of a data set: left out and reported, not the end of the job."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from lc_engine.data.faults import patiently
from lc_engine.data.identity import FileStates
from lc_engine.data.ids import id_of_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lc_engine.data.batch import Source

_Opened = TypeVar("_Opened")
_log = logging.getLogger(__name__)


def open_readable(
    paths: Sequence[Path], open_one: Callable[[Path], _Opened]
) -> tuple[dict[Path, _Opened], dict[str, str], FileStates]:
    """Open the readable files of a data set.

    Args:
        paths: the files.
        open_one: opens one of them; raises ValueError if the file is unreadable.

    Returns:
        The results by file, the error texts by name for the unreadable files, and the states that
        the readable ones had before they were opened.

    Raises:
        ValueError: no file is readable; the error of the first one.
        ReadError: the system does not let a file be read, which says nothing about the file.
    """
    states = FileStates.of(paths)
    opened: dict[Path, _Opened] = {}
    unreadable: dict[str, str] = {}
    first: ValueError | None = None
    for path in paths:
        try:
            opened[path] = patiently(functools.partial(open_one, path), path)
        except ValueError as error:
            first = first or error
            unreadable[id_of_name(path.name)] = (
                str(error).encode(errors="backslashreplace").decode()
            )
    if first is not None and not opened:
        raise first
    for reason in unreadable.values():
        _log.warning("left out: %s", reason)
    return opened, unreadable, states.part([i for i, path in enumerate(paths) if path in opened])


def unreadable_files(source: Source) -> dict[str, str]:
    """Return name -> error text of the unreadable files of a source."""
    described: dict[str, Any] = source.describe()
    return dict(described.get("refused", {}))
