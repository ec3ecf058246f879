from __future__ import annotations

import numpy as np
import pytest

from lc_engine.data.table import ScoreTable
from lc_engine.data.unscored import first_reasons


def table(status, detail, ids=None):
    rows = len(status)
    numbers = np.zeros(rows, np.float32)
    return ScoreTable.from_arrays(
        ids=np.arange(rows) if ids is None else np.asarray(ids),
        labels=np.zeros(rows, np.int64),
        lc=numbers,
        loss=numbers,
        lc_std=numbers,
        status=status,
        detail=detail,
        metadata={},
    )


def test_each_status_has_a_line_with_its_first_row_and_the_reason(tmp_path):
    status = ["ok", "unreadable", "bad_label", "ok", "unreadable"]
    detail = ["", "cut\n  short", "the label is 9", "", "other"]
    want = [
        "  2 unreadable, first in row 1: cut short",
        "  1 bad_label, first in row 2: the label is 9",
    ]
    found = table(status, detail)
    assert sorted(first_reasons(found)) == sorted(want)
    # Of several parts the row numbers go on.
    found.write(tmp_path / "part-00000-of-00002.parquet")
    table(["ok", "failed"], ["", "late"]).write(tmp_path / "part-00001-of-00002.parquet")
    both = first_reasons(ScoreTable.read(tmp_path))
    assert both == [*first_reasons(found), "  1 failed, first in row 6 (1): late"]


def test_ids_that_are_no_row_numbers_are_named():
    found = table(["ok", "unreadable"], ["", "broken"], ["a.jpg", "b.jpg"])
    assert first_reasons(found) == ["  1 unreadable, first in row 1 (b.jpg): broken"]


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_is_said_where_every_row_has_a_score(rows):
    assert first_reasons(table(["ok"] * rows, [""] * rows)) == []


def test_long_details_and_many_statuses_are_cut():
    (line,) = first_reasons(table(["failed"], ["x" * 5000]))
    assert line == "  1 failed, first in row 0: " + "x" * 199 + "…"
    many = first_reasons(table([f"s{i}" for i in range(11)], [""] * 11))
    assert len(many) == 9
    assert many[-1] == "  and 3 further statuses"
