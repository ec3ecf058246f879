"""Every row with what became of it, and the rows that look mislabelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.pruning.suspicious import (
    listed,
    measure_of,
    nearest_classes,
    ranks,
    reason_of,
    to_csv,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from lc_engine.data.table import ScoreTable
    from lc_engine.pruning.choice import Choice
    from lc_engine.pruning.columns import Columns
    from lc_engine.selection.decide import Selection


def rows_table(
    columns: Columns,
    found: Selection,
    kept: NDArray[np.int64],
    choice: Choice,
    classes: Sequence[str] | None,
) -> pa.Table:
    """Return every row of the data: its scores, its group and rank there, and what became of it.

    The columns of the scores, but for `path_log_probs`, and `row` (its number), `group`, `rank`
    (0 the hardest of its group, 1 the easiest), `kept` and `reason`: "chosen" or "not_chosen",
    "always" or "never" (named), "suspected" (set aside by the noise guard), "unscored".

    Args:
        columns: of the scores and the data.
        found: the selection.
        kept: (n,) row numbers.
        choice: that led to it.
        classes: names of the classes.
    """
    arrow = require("pyarrow", "table")
    table = columns.table
    names = [name for name in table.column_names if name != "path_log_probs"]
    scores = arrow.concat_tables([*table.pieces(*names)]).replace_schema_metadata()
    scores = scores.combine_chunks()
    group = found.group_of()
    reason = np.full(len(table), "not_chosen", "<U10")
    reason[found.rows] = "chosen"
    reason[found.left.always.indices] = "always"
    reason[found.left.never.indices] = "never"
    reason[found.left.suspected] = "suspected"
    reason[np.asarray(table.column("status")) != OK] = "unscored"
    is_kept = np.zeros(len(table), bool)
    is_kept[kept] = True
    shown = group_names(found, choice, classes)
    result = {"row": arrow.array(np.arange(len(table)))}
    result |= {name: scores.column(name) for name in names}
    result |= {name: arrow.array(values.tolist()) for name, values in columns.others.items()}
    result["group"] = arrow.array([shown[i] if i >= 0 else None for i in group.tolist()])
    rank = ranks(measure_of(table).hardness, group)
    result["rank"] = arrow.array(rank, mask=np.isnan(rank))
    result["kept"], result["reason"] = arrow.array(is_kept), arrow.array(reason.tolist())
    return arrow.table(result)


def group_names(found: Selection, choice: Choice, classes: Sequence[str] | None) -> list[str]:
    """Return the names of the groups as texts, those of classes by their own names."""
    names = found.left.eligible.group_names.tolist()
    if choice.by == "label" and classes is not None:
        return [classes[n] if 0 <= n < len(classes) else str(n) for n in names]
    if choice.by == "label" and names == [-1]:
        return ["all"]
    return [str(name) for name in names]


def suspicious_csv(table: ScoreTable, rows: pa.Table, classes: Sequence[str] | None) -> str:
    """Return the rows that look mislabelled as CSV, the most suspicious first, with reasons.

    Ranked within their group by IFD where there is one, else by loss. Where there are features and
    classes, the class whose mean is nearest to the row's features is named.
    """
    measure = measure_of(table)
    rank = _floats(rows, "rank")
    chosen = listed(rank, measure.hardness)
    labels = np.asarray(table.column("label"))
    ok = np.asarray(table.column("status")) == OK
    ok &= labels >= 0
    suggested: list[str | None] = [None] * len(chosen)
    ratio = np.ones(len(chosen))
    if table.has_features and len(chosen) and ok[chosen].all() and len(np.unique(labels[ok])) > 1:
        nearest, ratio = nearest_classes(table.features(), labels, ok, chosen)
        suggested = [
            _class_name(label, classes) if label != own else None
            for label, own in zip(nearest.tolist(), labels[chosen].tolist(), strict=True)
        ]
    taken = rows.take(chosen)
    groups = taken.column("group").to_pylist()
    only = len(set(rows.column("group").to_pylist()) - {None}) < 2
    values = measure.hardness[chosen].tolist()
    found: dict[str, Sequence[Any]] = {
        name: taken.column(name).to_pylist()
        for name in dict.fromkeys(
            ("row", "id", "label", "group", "rank", "lc", "loss", measure.name, "kept")
        )
    }
    found["suggested"] = ["" if name is None else name for name in suggested]
    found["reason"] = [
        reason_of(measure.name, value, place, "" if only else str(group), other, part)
        for value, place, group, other, part in zip(
            values, found["rank"], groups, suggested, ratio.tolist(), strict=True
        )
    ]
    return to_csv(found)


def _class_name(label: int, classes: Sequence[str] | None) -> str:
    return classes[label] if classes is not None and 0 <= label < len(classes) else str(label)


def _floats(rows: pa.Table, name: str) -> NDArray[np.float32]:
    return np.asarray(rows.column(name).to_numpy(), np.float32)
