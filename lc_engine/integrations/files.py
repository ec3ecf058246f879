"""Plain files: a subset of a JSON, CSV or Parquet file, as a file of the same kind and schema."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.atomic_write import atomic_write
from lc_engine._util.extras import require
from lc_engine.data.locations import check_outside
from lc_engine.data.readers.delimited import DELIMITERS, delimited_rows
from lc_engine.data.readers.json_text import parse_json
from lc_engine.data.readers.jsonl import JsonLines
from lc_engine.data.readers.parquet_footer import read_footer
from lc_engine.data.readers.parsing import parsing
from lc_engine.integrations.indices import check_kept

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_KINDS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet")
_BATCH_ROWS = 8192


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
        ValueError: an unknown kind, or another for `out`; damaged data; row indices out of range.
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
            written = _copy_parquet(data, keep, temporary)
        elif kind == ".json":
            written = _copy_list(data, keep, temporary)
        elif kind in DELIMITERS:
            written = _copy_delimited(data, keep, temporary)
        else:
            written = _copy_lines(data, keep, temporary, compressed=kind == ".jsonl.gz")
    return written


def _kind(path: Path) -> str | None:
    return next((kind for kind in _KINDS if path.name.lower().endswith(kind)), None)


def _copy_lines(data: Path, keep: ArrayLike, out: Path, *, compressed: bool) -> int:
    def open_lines(path: Path, mode: str) -> Any:
        return gzip.open(path, mode) if compressed else path.open(mode)

    rows = len(JsonLines(data))  # as they were scored, and refused if the file is damaged
    kept = check_kept(keep, rows)
    mask = np.zeros(rows, dtype=bool)
    mask[kept] = True
    with open_lines(data, "rb") as lines, open_lines(out, "wb") as target:
        non_empty = (line for line in lines if line.strip())
        for line, keep_line in zip(non_empty, mask, strict=True):
            if keep_line:
                target.write(line if line.endswith(b"\n") else line + b"\n")
    return len(kept)


def _copy_delimited(data: Path, keep: ArrayLike, out: Path) -> int:
    header, rows = delimited_rows(data)
    kept = check_kept(keep, len(rows))
    out.write_bytes(b"".join([header, *(rows[i] for i in kept)]))
    return len(kept)


def _copy_list(data: Path, keep: ArrayLike, out: Path) -> int:
    rows = parse_json(data.read_bytes(), data)
    if not isinstance(rows, list):
        raise ValueError(f"data: {data} must hold a JSON list of rows, got {type(rows).__name__}")
    kept = check_kept(keep, len(rows))
    text = json.dumps([rows[i] for i in kept], ensure_ascii=False, indent=2) + "\n"
    # A lone surrogate, which UTF-8 cannot hold, stays the escape that it was.
    out.write_bytes(text.encode(errors="backslashreplace"))
    return len(kept)


def _copy_parquet(data: Path, keep: ArrayLike, out: Path) -> int:
    pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
    paths = sorted(data.glob("*.parquet")) if data.is_dir() else [data]
    footers = [read_footer(path) for path in paths]
    kept = check_kept(keep, sum(sum(footer.groups) for footer in footers))
    schema = parquet.read_schema(paths[0])
    start = 0
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for path in paths:
            with parsing(path, "Parquet"), parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_BATCH_ROWS):
                    rows = _within(kept, start, start + len(batch))
                    start += len(batch)
                    if len(rows):
                        writer.write_table(pa.Table.from_batches([batch]).take(rows).cast(schema))
    return len(kept)


def _within(kept: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """Return the indices in [start, stop), relative to `start`."""
    first, last = np.searchsorted(kept, [start, stop])
    return kept[first:last] - start
