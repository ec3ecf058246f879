"""Rows of JSON Lines, copied byte for byte, and of a JSON list."""

from __future__ import annotations

import gzip
import io
import json
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.readers.json_text import parse_json
from lc_engine.data.readers.jsonl import JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


def count_lines(path: Path) -> int:
    """Return the number of lines that are not blank.

    Raises:
        ValueError: a damaged file, as where it is scored.
    """
    return len(JsonLines(path))


def copy_lines(path: Path, kept: NDArray[np.int64], out: Path) -> None:
    """Copy lines, byte for byte, compressed as the file is.

    Args:
        path: `.jsonl` or `.ndjson`, or either with `.gz` or `.zst` behind it.
        kept: indices among the lines that are not blank, ascending.
        out: the new file; `path` tells its compression.
    """
    wanted = iter(kept.tolist())
    following = next(wanted, None)
    with _reading(path) as lines, _writing(out, path.suffix) as target:
        for row, line in enumerate(line for line in lines if line.strip()):
            if row == following:
                target.write(line if line.endswith(b"\n") else line + b"\n")
                following = next(wanted, None)
                if following is None:
                    return
    if following is not None:
        raise ValueError(f"{path} has no row {following}: it changed while it was read")


def copy_list(path: Path, kept: NDArray[np.int64], out: Path) -> None:
    """Write some items of a JSON list, in its order, as an indented list in UTF-8."""
    rows = read_list(path)
    text = json.dumps([rows[row] for row in kept.tolist()], ensure_ascii=False, indent=2) + "\n"
    # A lone surrogate, which UTF-8 cannot hold, stays the escape that it was.
    out.write_bytes(text.encode(errors="backslashreplace"))


def read_list(path: Path) -> list[Any]:
    """Read a JSON list.

    Raises:
        ValueError: the file holds something else, or is damaged.
    """
    rows = parse_json(path.read_bytes(), path)
    if not isinstance(rows, list):
        raise ValueError(f"data: {path} must hold a JSON list of rows, got {type(rows).__name__}")
    return rows


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        if path.suffix == ".gz":
            yield cast("IO[bytes]", stack.enter_context(gzip.open(path, "rb")))
        elif path.suffix == ".zst":
            stream = require("pyarrow", "table").input_stream(str(path), compression="zstd")
            yield stack.enter_context(io.BufferedReader(stack.enter_context(stream)))
        else:
            yield stack.enter_context(path.open("rb"))


@contextmanager
def _writing(path: Path, suffix: str) -> Iterator[Any]:
    with ExitStack() as stack:
        if suffix == ".gz":
            file = stack.enter_context(path.open("wb"))
            # Without a name and a time: the same rows give the same bytes.
            yield stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        elif suffix == ".zst":
            arrow = require("pyarrow", "table")
            yield stack.enter_context(arrow.output_stream(str(path), compression="zstd"))
        else:
            yield stack.enter_context(path.open("wb"))


def line_bytes(path: Path) -> NDArray[np.int64]:
    """Return the bytes (N,) of each line that is not blank, its end included; uncompressed."""
    with _reading(path) as lines:
        return np.array([len(line) for line in lines if line.strip()], np.int64)
