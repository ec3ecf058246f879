"""The data of the page's script: a list per column of the page's rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.reporting.sections import budget
from lc_engine.reporting.survey import STD_MAX
from lc_engine.reporting.token_shades import SHADES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from lc_engine.reporting.content import Content

_OWN = frozenset(("id", "label", "lc", "loss", "lc_std", "path_log_probs", "status", "detail"))
# A column with more values than this has no filter and no colours.
_VALUES = 200


def payload(content: Content) -> dict[str, Any]:
    """Return JSON values."""
    codes = (content.kept << np.arange(len(content.kept))[:, None]).sum(0)
    drawn = np.isin(content.numbers, content.survey.drawn) & content.ok
    shown = sorted(content.previews)
    at = dict(zip(shown, range(len(shown)), strict=True))
    labels = content.columns["label"].astype(np.int64)
    nearest = content.nearest
    named = labels if nearest is None else np.concatenate([labels, nearest])
    numbers, texts = _further(content)
    found: dict[str, Any] = {
        "id": content.ids,
        "label": labels.tolist(),
        "nearest": None if nearest is None else nearest.tolist(),
        "kept": codes.astype(int).tolist(),
        "drawn": drawn.astype(int).tolist(),
        "preview": [at.get(number, -1) for number in content.numbers.tolist()],
        "path": None if content.paths is None else [_rounded(p, 3) for p in content.paths],
        "previews": [content.previews[number].to_dict() for number in shown],
        "capacities": content.run.capacities,
        "names": {str(n): content.label(n) for n in np.unique(named).tolist() if n >= 0},
        "subsets": list(content.subsets),
        "extra": numbers,
        "texts": texts,
        "budget": budget(content),
        "shades": SHADES,
        "density": None,
    }
    found |= {name: _rounded(content.columns[name], 4) for name in ("lc", "loss", "lc_std")}
    if len(content.survey.drawn) < content.rows:
        found["density"] = {"rows": content.survey.density.tolist(), "std_max": STD_MAX}
    return found


def _further(content: Content) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the further columns: numbers, and texts as values with the place of each row's."""
    numbers, texts = dict[str, Any](), dict[str, Any]()
    types = require("pyarrow.types", "table")
    carried: dict[str, NDArray[Any]] = dict(content.carried)
    for field in content.taken.schema:
        column = content.taken.column(field.name)
        if field.name in _OWN:
            continue
        if types.is_floating(field.type) or types.is_integer(field.type):
            numbers[field.name] = _rounded(_floats(column), 4)
        elif types.is_string(field.type):
            carried[field.name] = np.array([str(value) for value in column.to_pylist()], np.str_)
    for name, values in carried.items():
        parsed = _parsed(values)
        if parsed is not None:
            numbers[name] = _rounded(parsed, 6)
            continue
        known, where = np.unique(values, return_inverse=True)
        texts[name] = {
            "values": known.tolist(),
            "rows": where.tolist(),
            "is_category": len(known) <= _VALUES,
        }
    return numbers, texts


def _parsed(values: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return texts as numbers, None if they are not all numbers or are few and so rather names."""
    if len(np.unique(values)) <= 2:
        return None
    try:
        return values.astype(np.float64)
    except ValueError:
        return None


def _rounded(values: NDArray[Any] | Sequence[float], digits: int) -> list[float | None]:
    return [
        round(value, digits) if math.isfinite(value) else None
        for value in np.asarray(values, np.float64).tolist()
    ]


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast("float64").to_numpy(zero_copy_only=False))
