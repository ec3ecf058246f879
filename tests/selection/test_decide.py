from __future__ import annotations

import numpy as np
import pytest

import lc_engine as lc
from helpers.selection_tables import random_columns
from lc_engine.selection.auto_strategy.candidates import ALL
from lc_engine.selection.decide import decide
from lc_engine.selection.exceptions import Exceptions


@pytest.fixture
def columns():
    """300 rows in three groups, some of them without a score."""
    columns = dict(random_columns(0, 300))
    columns["label"] = np.arange(300) % 3
    columns["id"] = np.arange(300)
    columns["status"] = np.where(np.arange(300) % 10 == 0, "unreadable", "ok")
    return columns


def groups_of(found):
    return {group["group"]: (group["rows"], group["kept"]) for group in found.groups()}


def test_a_selection_holds_what_select_returns(columns):
    found = decide(columns, 0.2, "easy")
    assert found.ids.tolist() == lc.select(columns, 0.2, "easy").tolist()
    assert found.rows.tolist() == found.ids.tolist()  # here ids are row numbers
    assert groups_of(found) == {0: (90, 18), 1: (90, 18), 2: (90, 18)}
    assert (found.group_of()[::10] == -1).all()
    assert (found.strategy, found.gamma, found.reason) == ("easy", None, "as asked")


def test_named_rows_are_kept_or_left_out_and_count_towards_the_budget(columns):
    exceptions = Exceptions(always=np.array([1, 4, 7]), never=np.array([2, 5]))
    for strategy in ("easy", "random", "flexrand"):
        found = decide(
            columns,
            6,
            strategy,
            gamma=0.5 if strategy == "flexrand" else "auto",
            exceptions=exceptions,
        )
        assert len(found.rows) == 6
        assert {1, 4, 7} <= set(found.ids)
        assert not {2, 5} & set(found.ids)
    # A group of which more are named than its share has them all.
    assert groups_of(found)[1][1] == 3


def test_rows_named_in_both_lists_or_unknown_are_refused(columns):
    with pytest.raises(ValueError, match="id 1 is to be kept always and never"):
        decide(columns, 6, "easy", exceptions=Exceptions(np.array([1]), np.array([1])))
    with pytest.raises(ValueError, match=r"never_keep names 2 ids .*: 0, 999"):
        decide(columns, 6, "easy", exceptions=Exceptions(never=np.array([0, 3, 999])))


def test_shares_are_exact_and_the_others_share_the_rest(columns):
    found = decide(columns, 40, "random", shares={"0": 0.5})
    assert groups_of(found) == {0: (90, 20), 1: (90, 10), 2: (90, 10)}
    found = decide(columns, 40, "random", shares={0: 0.25, 2: 0.75})
    assert [kept for _, kept in groups_of(found).values()] == [10, 0, 30]
    found = decide(columns, 40, "random", shares={0: 0.5}, floor={1: 12})
    assert [kept for _, kept in groups_of(found).values()] == [20, 12, 8]
    with pytest.raises(ValueError, match="floor and cap allow 44"):
        decide(columns, 40, "random", shares={0: 0.5}, floor=12)
    with pytest.raises(ValueError, match="share of 0 must be at least 0, got nan"):
        decide(columns, 40, "random", shares={0: float("nan")})


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"7": 0.5}, "names group '7', which no row has"),
        ({"0": 1.5}, "sum to 1.5"),
        ({"0": -0.1}, "at least 0"),
        ({"0": 0.6, "1": 0.6}, "sum to 1.2"),
        ({"0": 0.9}, "which has 90"),
    ],
)
def test_shares_that_cannot_be_met_are_refused(columns, shares, message):
    with pytest.raises(ValueError, match=message):
        decide(columns, 200, "random", shares=shares)


def test_without_a_strategy_the_trial_decides_and_its_table_is_kept(columns):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((300, 6)) + 3 * np.eye(6)[columns["label"]]
    found = decide(columns, 12, features=features)
    assert len(found.trial) == len(ALL)
    chosen = lc.select(
        columns,
        12,
        found.strategy,
        gamma="auto" if found.gamma is None else found.gamma,
        noise_guard=found.noise_guard,
        features=features,
    )
    assert found.ids.tolist() == chosen.tolist()
