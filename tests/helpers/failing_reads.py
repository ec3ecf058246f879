"""A system that does not let files below a folder be read."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from pyarrow import parquet

if TYPE_CHECKING:
    from collections.abc import Iterator

# Every door through which a reader opens a file.
_DOORS = [(io, "open"), (np, "fromfile"), (np, "load"), (parquet, "ParquetFile")]
_DOORS += [(parquet, "read_metadata")]


@contextmanager
def failing_reads(folder: Path, number: int, *, times: int) -> Iterator[list[Path]]:
    """Let the next reads below a folder fail with an error of the system.

    Args:
        folder: what is outside is read as ever.
        number: the error's.
        times: so many reads fail.

    Returns:
        The files whose reading failed, one by one.
    """
    failed: list[Path] = []

    def door(found: Any) -> Any:
        def opened(file: Any, *args: Any, **options: Any) -> Any:
            named = isinstance(file, str | os.PathLike)
            if named and Path(file).is_relative_to(folder) and len(failed) < times:
                failed.append(Path(file))
                raise OSError(number, os.strerror(number), str(file))
            return found(file, *args, **options)

        return opened

    with ExitStack() as stack:
        for home, name in _DOORS:
            stack.enter_context(mock.patch.object(home, name, door(getattr(home, name))))
        yield failed
