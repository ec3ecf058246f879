"""JSON Lines, plain or compressed: an index of the lines, read by ranges of rows."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.faults import Fault, fault_of, patiently, resumed
from lc_engine.data.identity import FileStates
from lc_engine.data.readers.json_text import HEAD_BYTES, check_first_line, check_line_encoding
from lc_engine.data.readers.records import Record, Records, RowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Endings of the file names that `JsonLines` reads.
SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson")
INVALID_JSON: Final = "invalid_json"
_SKIPPED_BYTES: Final = 1 << 20


class JsonLines(Records):
    """A file with a JSON value per line; blank lines are not rows.

    Args:
        path: one of `SUFFIXES`. A compressed file is read from its start for every range.

    Raises:
        ValueError: a file that cannot be decompressed, without rows, in another encoding than
            UTF-8, or with one value over several lines.
        MissingExtraError: a `.zst` without pyarrow.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states = FileStates.of([path], listed=False)
        try:
            self._offsets, self._lines = patiently(self._index, path)
        except (zlib.error, EOFError, OSError) as error:
            if fault_of(error) is not Fault.ROW:
                raise
            raise ValueError(f"{path} cannot be decompressed: {error}") from None

    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where the lines that are not blank begin, and their numbers."""
        offsets: list[int] = []
        lines: list[int] = []
        position = 0
        with closing(self._open()) as opened:
            for number, line in enumerate(opened, 1):
                if number == 1:
                    check_line_encoding(line[:HEAD_BYTES], self.path)
                if line.strip():
                    if not lines:
                        check_first_line(line, self.path)
                    offsets.append(position)
                    lines.append(number)
                position += len(line)
        if not lines:
            raise ValueError(f"{self.path} holds no rows: it is empty or blank")
        return np.array(offsets, dtype=np.int64), np.array(lines, dtype=np.int64)

    def _open(self) -> Any:
        if self.path.suffix == ".gz":
            return gzip.open(self.path, "rb")
        if self.path.suffix == ".zst":
            stream = require("pyarrow", "table").input_stream(str(self.path), compression="zstd")
            return io.BufferedReader(stream)
        return self.path.open("rb")

    def __len__(self) -> int:
        """Return the number of lines that are not blank."""
        return len(self._lines)

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """Read rows [start, stop); see `Records.read`."""
        numbered = zip(
            self._lines[start:stop],
            resumed(lambda done: self._lines_from(start + done, stop), self.path),
            strict=True,
        )
        for number, line in numbered:
            yield Record(_parsed(line), f"line {number}")

    def _lines_from(self, start: int, stop: int) -> Iterator[bytes]:
        """Read the lines of rows [start, stop)."""
        if start >= stop:
            return
        with closing(self._open()) as opened:
            _skip(opened, int(self._offsets[start]))
            yield from islice((line for line in opened if line.strip()), stop - start)

    def digest(self) -> str:
        """Hash the name, size and modification time of the file."""
        return self.states.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind and the number of rows."""
        return {"kind": "jsonl", "rows": len(self)}


def _skip(opened: Any, position: int) -> None:
    """Advance to a position of a file that may not be seekable."""
    if opened.seekable():
        opened.seek(position)
        return
    while position:
        position -= len(opened.read(min(position, _SKIPPED_BYTES)))


def _parsed(line: bytes) -> Any | RowError:
    try:
        return json.loads(line.rstrip())
    except json.JSONDecodeError as error:  # its own line is 1: that of the file is told elsewhere
        return RowError(INVALID_JSON, f"not JSON: {error.msg} at column {error.colno}")
    except ValueError as error:  # includes invalid UTF-8
        return RowError(INVALID_JSON, f"not JSON: {error}")
    except RecursionError:
        return RowError(INVALID_JSON, "not JSON that can be parsed: nested too deeply")
