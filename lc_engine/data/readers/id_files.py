"""Files that name rows by their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine.data.ids import read_id_lines
from lc_engine.data.readers.arrays import open_npy

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def read_ids(path: Path) -> list[str] | np.ndarray:
    """Return the ids of a `.npy` file, or of a text with one per line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not `.npy`, one of Python objects, or not UTF-8.
    """
    return open_npy(path) if path.suffix == ".npy" else read_id_lines(path)
