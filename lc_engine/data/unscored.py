"""Why rows of a score table have no score, in a line for each status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lc_engine._util.extras import require
from lc_engine.data.batch import OK

if TYPE_CHECKING:
    from lc_engine.data.table import ScoreTable

# Of a detail: an error of a tokenizer's template may be a page.
_SHOWN: Final = 200
_MOST_LINES: Final = 8


def first_reasons(table: ScoreTable) -> list[str]:
    """Return a line per status other than "ok": its rows, the first of them and its detail.

    The numbers of rows count from 0, as those of `rows.parquet`; an id that is another stands
    beside the number.
    """
    compute = require("pyarrow.compute", "table")
    counts: dict[str, int] = {}
    firsts: dict[str, str] = {}
    start = 0
    for piece in table.pieces("id", "status", "detail"):
        status = piece.column("status")
        for found in status.value_counts().to_pylist():
            name = found["values"]
            if name == OK:
                continue
            counts[name] = counts.get(name, 0) + found["counts"]
            if name not in firsts:
                row = compute.index(status, name).as_py()
                firsts[name] = _first(start + row, piece.slice(row, 1).to_pylist()[0])
        start += piece.num_rows
    lines = [f"  {counts[name]:,} {name}, first in {firsts[name]}" for name in counts]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"  and {len(lines) - _MOST_LINES} further statuses"]
    return lines


def _first(row: int, fields: dict[str, Any]) -> str:
    named = f"row {row}" if fields["id"] == row else f"row {row} ({fields['id']})"
    text = " ".join(fields["detail"].split())
    return f"{named}: {text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}"
