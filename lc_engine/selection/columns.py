"""Checked access to the columns of a score table or of a mapping."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.data.table import DIRECTION, EASY, ScoreTable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    # A path is one of a score table; of data frames those of pandas and polars are known.
    Scores = ScoreTable | Mapping[str, ArrayLike]
    ScoresLike = Scores | str | os.PathLike[str] | Any

_log = logging.getLogger(__name__)

_NOT_SCORES = ("id", "label", "status", "detail")

NOTHING_TO_KEEP = 'scores has no row with status "ok": there is nothing to keep'


def as_scores(scores: ScoresLike) -> Scores:
    """Return a score table or a mapping of columns as it is, and either of a path or a data frame.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: something else, or a file that is not a score table.
    """
    if isinstance(scores, str | os.PathLike):
        return ScoreTable.read(Path(scores))
    if isinstance(scores, Mapping | ScoreTable):
        return scores
    if hasattr(scores, "columns") and hasattr(scores, "to_numpy"):
        return {str(name): scores[name].to_numpy() for name in scores.columns}
    raise ValueError(
        "scores must be a ScoreTable, a path of one, a data frame or a mapping of columns, got a "
        f"{type(scores).__name__}"
    )


def check_status(status: NDArray[Any], ids: NDArray[Any]) -> None:
    """Raise ValueError if a status (N,) is null; the text names the first such id of ids (N,)."""
    null = null_of(status)
    if null.any():
        raise ValueError(
            f'column "status" is null at id {first_marked(ids, null)!r}: it must say "ok", or why '
            "the row has no score"
        )


def null_of(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of the values (N,) are None or NaN."""
    if values.dtype.kind not in "OfT":
        return np.zeros(len(values), bool)
    return np.array([one is None or one != one for one in values.tolist()], bool)


def nothing_to_keep(scores: Scores) -> str:
    """Return why there is no row to choose from: how many rows have which status, and a detail."""
    status, detail = (optional_column(scores, name) for name in ("status", "detail"))
    if status is None or not len(status):
        return NOTHING_TO_KEEP
    names, counts = np.unique(np.asarray(status).astype(np.str_), return_counts=True)
    shown = ", ".join(f"{n:,} {name}" for name, n in zip(names.tolist(), counts, strict=True))
    first = "" if detail is None else f", the first: {np.asarray(detail)[0]}"
    return f"{NOTHING_TO_KEEP} ({shown}{first})"


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


def is_hard_when_high(scores: Scores, name: str) -> bool:
    """Return whether a high value of a score column means a hard row.

    The table's metadata say so; for a mapping of columns, and for tables written before a column
    had a direction there, the columns of lc_engine have theirs. Of any other column high is taken
    to be hard, which is logged.

    Raises:
        ValueError: there is no such column, or one that identifies rows.
    """
    if name in _NOT_SCORES:
        raise ValueError(f'score must be a column of numbers that ranks rows, got "{name}"')
    check_has_column(scores, name)
    stored = getattr(scores, "metadata", {}).get("direction", {})
    direction = stored.get(name, DIRECTION.get(name))
    if direction is None:
        _log.warning('column "%s" has no known direction: a high value is taken to be hard', name)
    return bool(direction != EASY)


def as_numbers(name: str, values: Any) -> NDArray[np.float32]:
    """Return a score column (N,) as float32.

    Raises:
        ValueError: it does not hold one number per row.
    """
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise ValueError(
            f'score must name a column of numbers, but "{name}" holds {array.dtype} of shape '
            f"{array.shape}"
        )
    return array.astype(np.float32)


def check_unique(ids: NDArray[Any], hashes: NDArray[np.uint64]) -> None:
    """Raise ValueError if an id appears twice; both (N,) are in ascending order of the hash."""
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    twice = same[ids[same] == ids[same + 1]]
    if len(twice):
        raise ValueError(
            f'column "id" holds {ids[twice].tolist()[0]!r} more than once: ids must be unique '
            "(were two score tables of the same data joined?)"
        )
