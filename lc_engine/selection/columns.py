"""Checked access to the columns of a score table or of a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.table import ScoreTable

    Scores = ScoreTable | Mapping[str, ArrayLike]

NOTHING_TO_KEEP = 'scores has no row with status "ok": there is nothing to keep'


def column_names(scores: Scores) -> list[str]:
    """Return the names of the columns."""
    return list(scores) if isinstance(scores, Mapping) else scores.column_names


def optional_column(scores: Scores, name: str) -> Any:
    """Return a column as stored, or None if there is none of that name."""
    if name not in column_names(scores):
        return None
    return scores[name] if isinstance(scores, Mapping) else scores.column(name)


def require_column(scores: Scores, name: str) -> Any:
    """Return a column as stored.

    Raises:
        ValueError: there is no such column.
    """
    check_has_column(scores, name)
    return optional_column(scores, name)


def check_has_column(scores: Scores, name: str) -> None:
    """Raise ValueError if there is no column of that name, without reading any."""
    names = column_names(scores)
    if name not in names:
        raise ValueError(f'scores has no column "{name}"; it has {", ".join(names)}')


def check_no_nan(name: str, values: NDArray[Any], ids: NDArray[Any]) -> None:
    """Raise ValueError if a score (N,) is NaN; the text names the first such id of ids (N,)."""
    nan = np.isnan(values)
    if nan.any():
        raise ValueError(
            f'column "{name}" is NaN at id {first_marked(ids, nan)!r}, whose status is "ok": '
            'mark such rows "non_finite" or drop them'
        )


def first_marked(ids: NDArray[Any], mask: NDArray[np.bool_]) -> Any:
    """Return the first of ids (N,) where mask (N,) is true, as a Python value."""
    return ids[mask][:1].tolist()[0]


def to_hardness(values: NDArray[np.float32], score: str) -> NDArray[np.float32]:
    """Return values (N,) of the column `score` ("loss" or "lc") turned so that high = hard."""
    return values if score == "loss" else -values
