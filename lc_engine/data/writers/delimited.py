"""Rows of CSV and TSV, as they are written in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine.data.readers.delimited import delimited_rows

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def count_rows(path: Path) -> int:
    """Return the number of rows below the header."""
    return len(delimited_rows(path)[1])


def copy_delimited(path: Path, kept: NDArray[np.int64], out: Path) -> None:
    """Copy the header and some rows, byte for byte.

    Args:
        path: a `.csv` or `.tsv` file.
        kept: row numbers, ascending.
        out: the new file.
    """
    header, rows = delimited_rows(path)
    out.write_bytes(b"".join([header, *(rows[row] for row in kept.tolist())]))
