"""The files of a run beside its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def side_file(folder: Path, name: str) -> Path:
    """Return the path of a file of a run that is no part of its table.

    It has an underscore before its name, since readers of Parquet folders (pandas, Arrow, Spark)
    skip such files. In a folder that an earlier version began, it keeps the name without.
    """
    earlier = folder / name
    return earlier if earlier.exists() else folder / f"_{name}"
