"""The same rows in every kind of file or object that holds records."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
from pyarrow import parquet

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"prompt": f"é {i}", "completion": "a" * i} for i in range(7)]
KINDS = [
    "jsonl", "jsonl.gz", "jsonl.zst", "json", "parquet", "folder", "saved", "dataset", "list"
]  # fmt: skip


def json_lines(rows: list[dict[str, Any]] = ROWS) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def write(kind: str, folder: Path, rows: list[dict[str, Any]] = ROWS) -> Any:
    """Write rows below `folder`, two row groups or files of Parquet; return the path or object."""
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_bytes(json_lines(rows))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(json_lines(rows)))
    elif kind == "jsonl.zst":
        path.write_bytes(zstd(json_lines(rows)))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    elif kind == "folder":
        path.mkdir()
        parquet.write_table(pa.Table.from_pylist(rows[:4]), path / "a.parquet", row_group_size=3)
        parquet.write_table(pa.Table.from_pylist(rows[4:]), path / "b.parquet")
    elif kind == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(path)
    elif kind == "dataset":
        return datasets.Dataset.from_list(rows)
    else:
        return rows
    return path
