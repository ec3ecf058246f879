"""strategy="auto": a trial among strategies, with features; FlexRand by its rule without."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from helpers.flipped_blobs import flipped_blobs
from helpers.selection_tables import as_table, random_columns, shuffled
from lc_engine.data.table import ScoreTable
from lc_engine.selection import choose_strategy, select
from lc_engine.selection.auto_gamma.cross_validation import CrossValidation
from lc_engine.selection.auto_strategy.candidates import ALL, FAVORITE, GUARD, RANDOM, Candidate
from lc_engine.selection.eligible import read_eligible_rows
from lc_engine.selection.problem import prepare

if TYPE_CHECKING:
    from pathlib import Path


def test_wrong_labels_favor_a_strategy_that_avoids_them(caplog: pytest.LogCaptureFixture) -> None:
    scores, features, wrong = flipped_blobs(0, 1200, 4)
    with caplog.at_level(logging.INFO, "lc_engine.selection"):
        kept = select(scores, 24, features=features)
    share = dict(zip(scores["id"].tolist(), wrong, strict=True))
    assert sum(share[i] for i in kept.tolist()) == 0
    choice = choose_strategy(scores, 24, features=features)
    assert choice.candidate != RANDOM
    mean, error = choice.gains[str(choice.candidate)]
    assert mean > error > 0
    assert str(choice.candidate) in caplog.text
    assert choice.reason in caplog.text


@pytest.mark.parametrize("keep", [1.0, 400])
def test_no_trial_is_made_where_all_rows_are_kept(keep: float) -> None:
    scores, features, _ = flipped_blobs(1, 400, 3)
    choice = choose_strategy(scores, keep, features=features)
    assert choice.candidate == RANDOM
    assert choice.reason == "all rows are kept, by any strategy"
    assert choice.gains == {}
    assert len(select(scores, keep, features=features)) == 400


def test_the_table_holds_every_candidate_that_the_columns_allow() -> None:
    scores, features, _ = flipped_blobs(1, 600, 3)
    without = choose_strategy(scores, 12, features=features).gains
    assert set(without) == {str(candidate) for candidate in ALL if not candidate.noise_guard}
    scores |= {"lc": np.exp(-scores["loss"]), "lc_std": np.zeros(600)}
    assert set(choose_strategy(scores, 12, features=features).gains) == set(map(str, ALL))


def test_what_was_chosen_is_what_is_kept() -> None:
    scores, features, _ = flipped_blobs(2, 800, 4)
    scores |= {"lc": np.exp(-scores["loss"]), "lc_std": np.zeros(800)}
    for keep in (12, 60, 400):
        strategy, gamma, guard = choose_strategy(scores, keep, features=features, seed=3).candidate
        more = {} if gamma is None else {"gamma": gamma}
        named = select(scores, keep, strategy, features=features, seed=3, noise_guard=guard, **more)
        kept = select(scores, keep, features=features, seed=3, balance=1.0)
        np.testing.assert_array_equal(kept, named)


def test_a_guarded_candidate_keeps_what_select_keeps_behind_the_guard() -> None:
    scores, features, _ = flipped_blobs(3, 300, 3)
    scores |= {"lc": np.exp(-scores["loss"]), "lc_std": np.zeros(300)}
    problem = prepare(scores, 30, by="label", floor=None, cap=None, noise_guard=0.0)
    rows = read_eligible_rows(scores)
    kept = Candidate("herding", noise_guard=GUARD).keep(
        problem, rows.align(features), "loss", np.random.default_rng(0)
    )
    expected = select(scores, 30, "herding", features=features, noise_guard=GUARD)
    np.testing.assert_array_equal(np.sort(rows.ids[kept]), expected)


@pytest.mark.parametrize("keep", [12, 2000])
def test_without_features_it_is_flexrand_by_its_rule(keep: int) -> None:
    scores, _, _ = flipped_blobs(0, 3000, 4)
    np.testing.assert_array_equal(select(scores, keep), select(scores, keep, "flexrand"))
    choice = choose_strategy(scores, keep)
    assert "by rule" in choice.reason
    assert choice.candidate == (Candidate("flexrand", 0.1) if keep == 12 else RANDOM)


def test_without_labels_it_says_that_a_trial_needs_them() -> None:
    scores, features, _ = flipped_blobs(0, 300, 3)
    scores["label"] = np.full(300, -1)
    choice = choose_strategy(scores, 200, features=features)
    assert choice.candidate == RANDOM
    assert "a trial needs rows of two classes" in choice.reason


def test_a_given_gamma_stands_for_flexrand() -> None:
    scores, features, _ = flipped_blobs(0, 300, 3)
    np.testing.assert_array_equal(
        select(scores, 30, gamma=0.2, features=features), select(scores, 30, "flexrand", gamma=0.2)
    )


def test_the_favorite_is_taken_unless_another_is_shown_to_be_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, features, _ = flipped_blobs(5, 1200, 4)
    first, *_ = ALL
    assert first == FAVORITE

    def with_accuracy(ahead: float, spread: float) -> Candidate:
        def accuracy_of(self: CrossValidation, keep: Any) -> np.ndarray:
            by_fold = np.full(len(self.folds), 0.9)
            if keep.__self__.strategy == "easy":
                by_fold += ahead + spread * np.resize([1, -1], len(by_fold))
            return by_fold

        monkeypatch.setattr(CrossValidation, "accuracy_of", accuracy_of)
        return choose_strategy(scores, 40, features=features).candidate

    assert with_accuracy(ahead=0.02, spread=0.0) == Candidate("easy")
    assert with_accuracy(ahead=0.02, spread=0.2) == FAVORITE
    assert with_accuracy(ahead=-0.9, spread=0.0) == FAVORITE


def test_a_fold_with_a_single_class_is_no_obstacle() -> None:
    scores, features, _ = flipped_blobs(6, 80, 2, flipped=0.0)
    scores["label"] = (np.arange(80) == 3).astype(int)
    assert len(select(scores, 8, features=features)) == 8


def test_a_score_of_pure_noise_is_not_chosen_over_features() -> None:
    scores, features, _ = flipped_blobs(4, 1200, 3, flipped=0.0)
    scores["loss"] = np.random.default_rng(4).random(1200)
    gains = choose_strategy(scores, 600, features=features).gains
    read_the_score = [gain for name, (gain, _) in gains.items() if "herding" not in name]
    assert max(read_the_score) < 3


def test_the_choice_does_not_depend_on_row_order() -> None:
    scores, features, _ = flipped_blobs(0, 500, 3)
    mixed, moved = shuffled(scores, 1, features)
    a = choose_strategy(scores, 15, features=features, seed=4)
    b = choose_strategy(mixed, 15, features=moved, seed=4)
    assert (a.candidate, a.gains) == (b.candidate, b.gains)
    np.testing.assert_array_equal(
        select(scores, 15, features=features, seed=4), select(mixed, 15, features=moved, seed=4)
    )


def test_an_option_of_one_strategy_does_not_go_with_auto() -> None:
    scores, _, _ = flipped_blobs(0, 100, 3)
    with pytest.raises(ValueError, match="strategy auto takes no option 'clusters'"):
        select(scores, 10, clusters=4)


@pytest.mark.parametrize("score", ["margin", "reward"])
def test_a_trial_ranks_rows_by_the_column_that_is_asked_for(score: str) -> None:
    scores, features, _ = flipped_blobs(0, 600, 3)
    sign = -1 if score == "margin" else 1  # its high values are easy; those of others are not
    by_loss = choose_strategy(scores, 24, features=features)
    scores[score] = sign * scores["loss"]
    assert choose_strategy(scores, 24, features=features, score=score).gains == by_loss.gains


def test_a_trial_ranks_rows_in_the_direction_of_the_table() -> None:
    class Reversed(dict[str, Any]):
        metadata: ClassVar = {"direction": {"loss": "high = easy"}}

    scores, features, _ = flipped_blobs(0, 600, 3)
    gains = choose_strategy(scores, 24, features=features).gains
    scores["loss"] = -scores["loss"]
    assert choose_strategy(Reversed(scores), 24, features=features).gains == gains


@pytest.mark.parametrize("kind", [np.str_, object])
def test_labels_may_be_names(kind: Any) -> None:
    scores, features, _ = flipped_blobs(0, 600, 3)
    expected = select(scores, 24, features=features)
    scores["label"] = np.array(["ape", "bee", "cat"])[scores["label"]].astype(kind)
    np.testing.assert_array_equal(select(scores, 24, features=features), expected)


def test_a_trial_leaves_out_rows_without_a_label() -> None:
    scores, features, _ = flipped_blobs(0, 900, 3)
    scores["label"] = np.where(scores["id"] % 3, scores["label"], -1)
    problem = prepare(scores, 60, by="label", floor=None, cap=None, noise_guard=0.0)
    trial = CrossValidation(problem, np.zeros(900, np.float32), features, np.random.default_rng(0))
    assert trial.classes == 3
    assert len(trial.labels) == 600
    assert trial.folds[0].counts[0] == 0  # of the rows without
    assert len(select(scores, 60, features=features)) == 60
    only = scores | {"label": np.where(scores["id"] < 3, scores["label"], -1)}
    assert (
        "a trial needs rows of two classes" in choose_strategy(only, 30, features=features).reason
    )


@pytest.mark.parametrize("by", [None, "source"])
def test_without_a_column_of_labels_the_rule_decides(by: str | None) -> None:
    scores, features, _ = flipped_blobs(0, 300, 3)
    scores["source"] = (np.arange(300) < 20).astype(int)
    del scores["label"]
    assert len(select(scores, 30, by=by, features=features)) == 30
    choice = choose_strategy(scores, 200, by=by, features=features)
    assert "a trial needs a column label" in choice.reason


def test_a_path_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = random_columns(0, 200)
    as_table(columns).write(tmp_path / "scores.parquet")
    features = np.random.default_rng(0).standard_normal((200, 4))
    want = select(tmp_path / "scores.parquet", 40, features=features)
    read, times = ScoreTable.read, list[object]()
    monkeypatch.setattr(ScoreTable, "read", lambda path: (times.append(path), read(path))[1])
    kept = select(tmp_path / "scores.parquet", 40, features=features)
    np.testing.assert_array_equal(kept, want)
    assert len(times) == 1
