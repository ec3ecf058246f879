"""What a strategy takes, said before it begins, and refused where it is hours."""

from __future__ import annotations

import logging
import tracemalloc

import numpy as np
import pytest

from lc_engine.selection import cost, select
from lc_engine.selection.auto_gamma import constants
from lc_engine.selection.eligible import EligibleRows
from lc_engine.selection.problem import prepare
from lc_engine.selection.strategies import STRATEGIES, feature_space, keywords

READ_FEATURES = [name for name in STRATEGIES if "features" in keywords(name)]


def scores(rows: int, classes: int = 2) -> dict[str, np.ndarray]:
    loss = np.random.default_rng(0).random(rows, dtype=np.float32)
    return {"id": np.arange(rows), "label": np.arange(rows) % classes, "loss": loss}


def problem(rows: int, keep: float):
    return prepare(scores(rows), keep, by="label", floor=None, cap=None, noise_guard=0.0)


@pytest.fixture
def _rates_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VALUES_READ", "GREEDY_RATE", "PRODUCT_RATE", "K_MEANS_PASSES"):
        monkeypatch.setattr(constants, name, 1.0)


@pytest.mark.usefixtures("_rates_of_one")
@pytest.mark.parametrize(
    ("strategy", "operations"),
    [
        ("moderate", 0),
        ("herding", 2 * 2 * (50 * 5 * 4)),  # two groups, 5 steps over 50 rows of 4 features
        # and the outputs of a classifier of two classes
        ("guarded_herding", 2 * 2 * (50 * 5 * 4) + 2 * 100 * 4 * 2),
        ("easy_diverse", 2 * 2 * 5 * 4 * (50 + 50)),  # 5 clusters, fitted to 50 rows, then found
        ("entropy", 20 * 6 * 100 * 5 * 2),  # 20 epochs of 100 rows of 4 features and a bias
        ("el2n", 50 * 6 * 100 * 5 * 2),
    ],
)
def test_seconds_are_operations_over_a_rate(strategy: str, operations: int) -> None:
    found = cost.estimate(problem(100, 10), strategy, 4)
    assert found.seconds == 100 * 4 + operations


def test_blocks_make_the_greedy_estimate_grow_with_the_rows_alone() -> None:
    seconds = [cost.estimate(problem(n, 0.1), "herding", 384).seconds for n in (10**5, 10**6)]
    assert seconds[1] / seconds[0] == pytest.approx(10, rel=0.1)
    assert seconds[1] < 60


@pytest.mark.parametrize("strategy", READ_FEATURES)
def test_the_estimate_of_memory_bounds_what_is_taken(strategy: str) -> None:
    table = scores(4_000)
    features = np.random.default_rng(0).standard_normal((4_000, 160), dtype=np.float32)
    features = features.astype(np.float16)
    expected = cost.estimate(problem(4_000, 0.1), strategy, 160).bytes
    select(scores(200), 20, strategy, features=features[:200])  # imports
    tracemalloc.start()
    try:
        select(table, 0.1, strategy, features=features)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    columns = 500_000
    assert expected / 3 < peak < expected + columns, (peak, expected)


def test_minutes_are_said_beforehand(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    features = np.random.default_rng(0).standard_normal((100, 4))
    caplog.set_level(logging.INFO, "lc_engine.selection.cost")
    kept = select(scores(100), 10, "herding", features=features)
    assert not caplog.records
    monkeypatch.setattr(constants, "GREEDY_RATE", 4000 / 180)
    assert (select(scores(100), 10, "herding", features=features) == kept).all()
    assert [record.getMessage() for record in caplog.records] == [
        "strategy herding on 100 rows of 4 features, 10 of them kept, takes about 3.0 minutes on "
        "one core and 0.0 GiB of memory"
    ]


@pytest.mark.parametrize(
    ("strategy", "cheaper"),
    [("el2n", "margin takes less than half"), ("kcenter", "easy and flexrand read the scores")],
)
def test_hours_are_refused_before_features_are_read(
    monkeypatch: pytest.MonkeyPatch, strategy: str, cheaper: str
) -> None:
    monkeypatch.setattr(constants, "PRODUCT_RATE", 1.0)
    monkeypatch.setattr(constants, "GREEDY_RATE", 0.5)
    monkeypatch.setattr(EligibleRows, "align", None)
    with pytest.raises(
        ValueError, match=rf"{strategy} on 100 rows .* [\d.]+ hours .*: .*{cheaper}"
    ):
        select(scores(100), 10, strategy, features=np.ones((100, 4)))


def test_more_memory_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cost.memory_of_machine() > 2**28
    monkeypatch.setattr(cost, "memory_of_machine", lambda: 1000)
    with pytest.raises(
        ValueError, match=r"takes .* but this machine has 0\.0 GiB: strategies easy"
    ):
        select(scores(100), 10, "moderate", features=np.ones((100, 4)))
    assert len(select(scores(100), 10, "easy")) == 10


def test_clusters_grow_with_the_budget_of_large_groups() -> None:
    counts = (5, 50, 1_024, 1_087, 2_048, 100_000)
    assert [feature_space.clusters_of(n, None) for n in counts] == [5, 16, 16, 16, 32, 256]
    assert [feature_space.clusters_of(n, 300) for n in counts] == [5, 50, 300, 300, 300, 300]
