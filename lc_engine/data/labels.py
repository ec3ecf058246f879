"""Labels of any integer type as int64, and why a value is no label."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from lc_engine.data.batch import NO_LABEL

MISSING = "the label is missing (null)"
_LARGEST = (1 << 63) - 1


class Labels(NamedTuple):
    """Labels of B rows.

    Attributes:
        values: (B,) int64; −1 where there is none.
        wrong: row -> why it has none.
    """

    values: np.ndarray
    wrong: dict[int, str]


def int64_labels(column: np.ndarray, missing: np.ndarray | None = None) -> Labels:
    """Return a column of integers, signed or not, as labels.

    Args:
        column: (B,) integers.
        missing: (B,) bools, where there is no label; None where every row has one.
    """
    values = column.astype(np.int64)
    wrong: dict[int, str] = {}
    if column.dtype.kind == "u" and column.dtype.itemsize == 8:
        for row in np.flatnonzero(column > _LARGEST).tolist():
            wrong[row] = _too_large(int(column[row]))
    if missing is not None:
        wrong |= dict.fromkeys(np.flatnonzero(missing).tolist(), MISSING)
    values[list(wrong)] = NO_LABEL
    return Labels(values, wrong)


def int64_label(value: Any, shown: str) -> tuple[int, str]:
    """Return (label, "") or (−1, why a value is none); `shown` names the value."""
    if value is None:
        return NO_LABEL, MISSING
    try:
        number = operator.index(value)
    except TypeError:
        return NO_LABEL, f"the label must be an integer, got {shown:.80}"
    return (number, "") if abs(number) <= _LARGEST else (NO_LABEL, _too_large(number))


def _too_large(number: int) -> str:
    shown = str(number) if number.bit_length() < 128 else f"of {number.bit_length()} bits"
    return f"the label is {shown}, but must fit 64 bits"
