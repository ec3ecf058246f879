from __future__ import annotations

import logging

import numpy as np
import pytest

from helpers.flipped_blobs import flipped_blobs
from helpers.selection_tables import shuffled
from lc_engine.selection import GammaChoice, choose_gamma, select
from lc_engine.selection.auto_gamma import cross_validation
from lc_engine.selection.auto_gamma.constants import CANDIDATES, MAX_BUDGET, MAX_VALIDATION


@pytest.mark.parametrize("seed", range(2))
def test_wrong_labels_and_few_rows_favor_easy_rows(seed: int) -> None:
    scores, features, wrong = flipped_blobs(seed, 1500, 4)
    choice = choose_gamma(scores, 12, features=features, seed=seed)
    assert 0 < choice.gamma <= 0.35
    assert not choice.random
    assert set(choice.gains) == set(CANDIDATES)
    mean, error = choice.gains[choice.gamma]
    assert mean > error > 0
    assert choice.seconds > 0
    assert f"gamma {choice.gamma:g}" in str(choice)
    kept = select(scores, 12, gamma=choice.gamma, seed=seed)
    random = select(scores, 12, "random", seed=seed)
    share = dict(zip(scores["id"].tolist(), wrong, strict=True))
    assert sum(share[i] for i in kept.tolist()) <= sum(share[i] for i in random.tolist())


@pytest.mark.parametrize("seed", range(3))
def test_a_score_of_pure_noise_shows_no_gain(seed: int) -> None:
    scores, features, _ = flipped_blobs(seed, 1200, 3, flipped=0.0)
    scores["loss"] = np.random.default_rng(seed).random(1200)
    choice = choose_gamma(scores, 600, features=features, seed=seed)
    # With nothing to find, any γ is a random draw: no gain may look large.
    assert max(abs(mean) for mean, _ in choice.gains.values()) < 3


def test_the_choice_does_not_depend_on_row_order() -> None:
    scores, features, _ = flipped_blobs(0, 500, 3)
    mixed, moved = shuffled(scores, 1, features)
    a = choose_gamma(scores, 15, features=features, seed=4)
    b = choose_gamma(mixed, 15, features=moved, seed=4)
    assert (a.gamma, a.gains) == (b.gamma, b.gains)


@pytest.mark.parametrize(
    ("samples", "classes", "keep"), [(30_000, 2, 0.9), (8_000, 400, 4_000), (6_000, 3, 4)]
)
def test_the_trial_stays_small(
    monkeypatch: pytest.MonkeyPatch, samples: int, classes: int, keep: float
) -> None:
    scores, features, _ = flipped_blobs(0, samples, classes)
    seen: list[tuple[int, int]] = []

    def record(x: np.ndarray, y: np.ndarray, c: int, queries: np.ndarray) -> np.ndarray:
        seen.append((len(x), len(queries)))
        return np.zeros(len(queries), dtype=np.intp)

    monkeypatch.setattr(cross_validation, "ridge_predict", record)
    choice = choose_gamma(scores, keep, features=features)
    assert choice.random, "a classifier that learns nothing shows no gain"
    fitted = {n for n, _ in seen}
    assert max(fitted) <= MAX_BUDGET
    assert max(m for _, m in seen) <= MAX_VALIDATION
    if keep == 4:
        assert fitted == {4}, "a small budget is not changed"


def test_the_choice_is_that_of_select_with_the_same_arguments(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scores, features, _ = flipped_blobs(0, 600, 3)
    scores["lc"], scores["lc_std"] = np.exp(-scores["loss"]), np.zeros(600)
    bounds = {"floor": {0: 30}, "cap": {1: 10}, "noise_guard": 0.2}
    choice = choose_gamma(scores, 60, features=features, **bounds)
    with caplog.at_level(logging.INFO, logger="lc_engine.selection"):
        kept = select(scores, 60, "flexrand", features=features, **bounds)
    logged = caplog.records[0].args
    assert isinstance(logged, tuple)
    assert logged[0].gains == choice.gains
    np.testing.assert_array_equal(kept, select(scores, 60, gamma=choice.gamma, **bounds))
    for name in bounds:
        less = {other: value for other, value in bounds.items() if other != name}
        assert choose_gamma(scores, 60, features=features, **less).gains != choice.gains


def test_without_features_the_rule_reads_the_rows_per_group() -> None:
    scores, _, _ = flipped_blobs(0, 4000, 4)
    chosen = [choose_gamma(scores, keep).gamma for keep in (12, 60, 160, 2000)]
    assert chosen == [0.1, 0.2, 0.35, 0.0]
    assert "by rule" in choose_gamma(scores, 12).reason
    few = {name: column[:30] for name, column in scores.items()}
    choice = choose_gamma(few, 8, features=np.zeros((30, 3)))
    assert "30 rows are too few" in choice.reason


def test_a_single_class_has_no_trial() -> None:
    scores = {"id": np.arange(60), "label": np.zeros(60, int), "loss": np.arange(60.0)}
    choice = choose_gamma(scores, 6, features=np.random.default_rng(0).random((60, 2)))
    assert choice.random
    assert "two classes" in choice.reason


def test_the_trial_needs_labels_whatever_the_groups() -> None:
    scores, features, _ = flipped_blobs(0, 200, 3)
    scores["source"] = np.arange(200) % 2
    assert isinstance(choose_gamma(scores, 20, features=features, by="source"), GammaChoice)
    assert isinstance(choose_gamma(scores, 20, features=features, by=None), GammaChoice)
    with pytest.raises(ValueError, match="one row per row of scores"):
        choose_gamma(scores, 20, features=features[:-1], by="source")
    del scores["label"]
    with pytest.raises(ValueError, match='no column "label"'):
        choose_gamma(scores, 20, features=features, by="source")
