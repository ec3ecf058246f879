"""A table in plain text."""

from __future__ import annotations


def aligned(rows: list[list[str]]) -> list[str]:
    """Return the lines of a table: its first column to the left, the others to the right.

    Args:
        rows: the heading first, which gets a rule below it.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "─" * max(map(len, lines)), *lines[1:]]
