"""How groups share the budget: as rows^α, with a given α or with the one that a trial finds."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lc_engine.selection import select
from lc_engine.selection.budget import allocate
from lc_engine.selection.decide import decide


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        (1.0, [90, 9, 1]),  # 900 : 90 : 10
        (0.5, [73, 23, 4]),  # 30 : 9.5 : 3.2, of which the last may keep 10
        (0.0, [45, 45, 10]),  # equally, but no more than there are
    ],
)
def test_groups_share_the_budget_as_a_power_of_their_rows(
    balance: float, expected: list[int]
) -> None:
    sizes, names = np.array([900, 90, 10]), np.arange(3)
    found = allocate(sizes, names, 100, floor=None, cap=None, balance=balance)
    assert found.sum() == 100
    if balance == 0.5:
        weights = sizes**0.5 / (sizes**0.5).sum()
        assert np.abs(found - 100 * weights).max() <= 1
    else:
        assert found.tolist() == expected


@given(
    sizes=st.lists(st.integers(0, 10**6), min_size=1, max_size=30).filter(any),
    share=st.floats(0.001, 1.0),
    balance=st.floats(0.0, 1.0),
)
def test_the_sum_is_exact_and_no_group_gives_more_than_it_has(
    sizes: list[int], share: float, balance: float
) -> None:
    total = sum(sizes)
    budget = max(1, round(share * total))
    rows = np.array(sizes)
    found = allocate(rows, np.arange(len(rows)), budget, floor=None, cap=None, balance=balance)
    assert found.sum() == budget
    assert (found >= 0).all()
    assert (found <= rows).all()
    order = np.argsort(rows, kind="stable")
    assert (np.diff(found[order]) >= -1).all(), "a larger group never gets less, up to rounding"


def long_tail(seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
    """Five overlapping classes of 800 to 20 rows."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(5), [800, 320, 120, 50, 20])
    centers = 1.2 * np.random.default_rng(7).standard_normal((5, 12))
    features = centers[labels] + rng.standard_normal((len(labels), 12))
    scores = {"id": np.arange(len(labels)), "label": labels, "loss": rng.random(len(labels))}
    return scores, features.astype(np.float32)


def test_a_long_tail_shares_more_equally_if_classes_count_alike(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scores, features = long_tail()
    with caplog.at_level(logging.INFO, "lc_engine.selection"):
        balanced = decide(scores, 60, features=features)
    assert balanced.balance < 1.0
    assert f"rows^{balanced.balance:g}" in caplog.text
    assert any(tried["candidate"].startswith("budget as rows^") for tried in balanced.trial)
    kept = np.bincount(scores["label"][balanced.ids], minlength=5)
    as_they_are = np.bincount(
        scores["label"][select(scores, 60, features=features, balance=1.0)], minlength=5
    )
    assert kept[-2:].sum() > as_they_are[-2:].sum()
    assert kept.sum() == as_they_are.sum() == 60


def test_equal_shares_gain_less_if_rows_count_alike() -> None:
    scores, features = long_tail()
    gains = {}
    for objective in ("balanced", "as-is"):
        trial = decide(scores, 60, features=features, objective=objective).trial
        gains[objective] = {tried["candidate"]: tried["gain"] for tried in trial}
    equally = "budget as rows^0"
    assert gains["as-is"][equally] < gains["balanced"][equally] - 5


@pytest.mark.parametrize("bound", [{"floor": 2}, {"cap": 40}, {"by": None}])
def test_bounds_and_a_single_group_are_not_shared_out_anew(bound: dict[str, Any]) -> None:
    scores, features = long_tail()
    assert decide(scores, 60, features=features, **bound).balance == 1.0


def test_a_balance_out_of_range_is_refused() -> None:
    scores, _ = long_tail()
    with pytest.raises(ValueError, match=r"balance must lie in \[0, 1\], got 2"):
        select(scores, 60, balance=2.0)
