"""Plain files: a subset of a JSON, CSV or Parquet file, as a file of the same kind and schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lc_engine._util.atomic_write import atomic_write
from lc_engine.data.locations import check_outside
from lc_engine.data.readers.delimited import DELIMITERS
from lc_engine.data.writers.delimited import copy_delimited, count_rows
from lc_engine.data.writers.json_rows import copy_lines, copy_list, count_lines, read_list
from lc_engine.data.writers.parquet import copy_parquet, row_counts, within
from lc_engine.integrations.indices import check_kept

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_KINDS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet")


def write_subset(data: str | Path, keep: ArrayLike, out: str | Path) -> int:
    """Write the kept rows of a file, in its order, to a new file of the same kind.

    Lines of JSON and rows of CSV are copied byte for byte; Parquet keeps its schema, metadata and
    row order, and is read one row group at a time.

    Args:
        data: a `.jsonl`, `.jsonl.gz`, `.json` (one list), `.csv`, `.tsv` or `.parquet` file, or a
            folder of `.parquet` files, as `lc_engine.score` read it.
        keep: row indices, as `lc_engine.select` returns them for such data.
        out: a new file, or one to replace, with the suffix of the data.

    Returns:
        The number of rows written.

    Raises:
        FileNotFoundError: there is nothing at `data`.
        ValueError: an unknown kind, or another for `out`; row indices out of range.
    """
    data, out = Path(data), Path(out)
    if not data.exists():
        raise FileNotFoundError(f"data: {data} does not exist")
    kind = ".parquet" if data.is_dir() and any(data.glob("*.parquet")) else _kind(data)
    if kind is None:
        raise ValueError(f"data: {data} must be one of {', '.join(_KINDS)}, or a folder of Parquet")
    if _kind(out) != kind:
        raise ValueError(f"out: {out} must end with {kind}, like the data")
    check_outside(out, data)
    if out.exists() and out.samefile(data):
        raise ValueError(f"out: {out} is the data itself")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as temporary:
        if kind == ".parquet":
            return _copy_parquet(data, keep, temporary)
        if kind == ".json":
            kept = check_kept(keep, len(read_list(data)))
            copy_list(data, kept, temporary)
        elif kind in DELIMITERS:
            kept = check_kept(keep, count_rows(data))
            copy_delimited(data, kept, temporary)
        else:
            kept = check_kept(keep, count_lines(data))
            copy_lines(data, kept, temporary)
    return len(kept)


def _copy_parquet(data: Path, keep: ArrayLike, out: Path) -> int:
    paths = sorted(data.glob("*.parquet")) if data.is_dir() else [data]
    ends = np.cumsum(row_counts(paths)).tolist()
    kept = check_kept(keep, ends[-1])
    starts = [0, *ends[:-1]]
    copy_parquet(
        [(path, within(kept, *span)) for path, *span in zip(paths, starts, ends, strict=True)], out
    )
    return len(kept)


def _kind(path: Path) -> str | None:
    return next((kind for kind in _KINDS if path.name.lower().endswith(kind)), None)
