"""Cells of CSV files that people open in a spreadsheet."""

from __future__ import annotations

from typing import Any, Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def inert(value: Any) -> Any:
    """Return a cell that no spreadsheet runs: an apostrophe before a text that is a formula's.

    Ids and labels are names of files and classes, which others chose.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
