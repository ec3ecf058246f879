"""CSV and TSV as records: every value a text, "" where there is none."""

from __future__ import annotations

import codecs
import csv
import io
from typing import TYPE_CHECKING, Any, Final

from lc_engine.data.faults import patiently
from lc_engine.data.identity import FileStates
from lc_engine.data.readers.records import ListRecords, RowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Endings of the file names that `DelimitedRecords` reads, and what separates their values.
DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
INVALID_CSV: Final = "invalid_csv"
# The csv module refuses values that are longer, 128 KiB unless told otherwise.
_LONGEST_VALUE: Final = 1 << 30


class DelimitedRecords(ListRecords):
    """The rows of a file with a header, quoted as RFC 4180 says, in UTF-8; it is read at once.

    Args:
        path: ends with one of `DELIMITERS`.

    Raises:
        ValueError: no UTF-8, no header, a name twice in it, or a quote that does not end.
    """

    def __init__(self, path: Path) -> None:
        states = FileStates.of([path], listed=False)
        (names, _), *rows = _rows(path)
        if not any(names):
            raise ValueError(f"{path} has no header line, which names the fields")
        if len(set(names)) < len(names):
            raise ValueError(f"{path} names a field twice in its header: {', '.join(names)}")
        super().__init__([_fields(names, values) for values, _ in rows], states)

    def describe(self) -> dict[str, Any]:
        """Return the kind and the number of rows."""
        return {"kind": "csv", "rows": len(self)}


def delimited_rows(path: Path) -> tuple[bytes, list[bytes]]:
    """Return the header and the rows of a file as they are written, line breaks included.

    Raises:
        ValueError: as of `DelimitedRecords`.
    """
    header, *rows = (lines for _, lines in _rows(path))
    bom = codecs.BOM_UTF8 if path.read_bytes().startswith(codecs.BOM_UTF8) else b""
    if rows and not rows[-1].endswith(("\n", "\r")):
        rows[-1] += "\n"
    return bom + header.encode(), [lines.encode() for lines in rows]


def _rows(path: Path) -> list[tuple[list[str], str]]:
    """Return the values and the lines of the header and of each row; blank lines are not rows."""
    try:
        text = patiently(path.read_bytes, path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_VALUE))
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=DELIMITERS[path.suffix.lower()], strict=True)
    rows = []
    try:
        for values in reader:
            if values:
                rows.append((values, "".join(taken)))
            taken.clear()
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    return rows or [([], "")]


def _fields(names: list[str], row: list[str]) -> dict[str, str] | RowError:
    if len(row) != len(names):
        return RowError(INVALID_CSV, f"{len(row)} values, but the header names {len(names)} fields")
    return dict(zip(names, row, strict=True))
