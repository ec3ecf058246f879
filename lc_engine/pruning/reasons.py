"""Every row with what became of it, and the rows that look mislabelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.selection.suspicious import class_name, find_suspects, to_csv

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
    (`ScoreTable.ranks`), `kept` and `reason`: "chosen" or "not_chosen", "always" or "never"
    (named), "suspected" (set aside by the noise guard), "unscored".

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
    rank = table.ranks()
    result["rank"] = arrow.array(rank, mask=np.isnan(rank))
    result["kept"], result["reason"] = arrow.array(is_kept), arrow.array(reason.tolist())
    return arrow.table(result)


def group_names(found: Selection, choice: Choice, classes: Sequence[str] | None) -> list[str]:
    """Return the names of the groups as texts, those of classes by their own names."""
    names = found.left.eligible.group_names.tolist()
    if choice.by == "label" and classes is not None:
        return [class_name(name, classes) for name in names]
    if choice.by == "label" and names == [-1]:
        return ["all"]
    return [str(name) for name in names]


def suspicious_csv(table: ScoreTable, rows: pa.Table, classes: Sequence[str] | None) -> str:
    """Return the rows that look mislabelled as CSV, the most suspicious first, with reasons."""
    found = find_suspects(table)
    taken = rows.take(found.rows)
    columns: dict[str, Sequence[Any]] = {
        name: taken.column(name).to_pylist()
        for name in dict.fromkeys(
            ("row", "id", "label", "group", "rank", "lc", "loss", found.measure, "kept")
        )
    }
    columns["suggested"] = found.suggestions(classes)
    columns["reason"] = found.reasons(classes)
    return to_csv(columns)
