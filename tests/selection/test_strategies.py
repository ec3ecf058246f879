"""Each strategy against a slow implementation of its definition."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from helpers.flipped_blobs import flipped_blobs
from helpers.selection_tables import random_columns
from lc_engine.selection import select
from lc_engine.selection.linear_probe import standardize, train_softmax_probe
from lc_engine.selection.strategies.uncertainty import el2n_scores, uncertainty_scores


def one_class(**columns: np.ndarray) -> dict[str, np.ndarray]:
    samples = len(next(iter(columns.values())))
    return {"id": np.arange(samples), "label": np.zeros(samples, int), **columns}


@pytest.mark.parametrize("seed", range(3))
def test_easy_and_hard_are_the_ends(seed: int) -> None:
    scores = random_columns(seed, 100, 3)
    for strategy, sign in (("easy", 1), ("hard", -1)):
        kept = set(select(scores, 30, strategy).tolist())
        for label in np.unique(scores["label"]):
            mine = scores["label"] == label
            ids = scores["id"][mine][np.argsort(sign * scores["loss"][mine])]
            taken = [i in kept for i in ids.tolist()]
            assert taken == sorted(taken, reverse=True)


def test_an_infinite_loss_is_the_hardest() -> None:
    loss = np.array([1.0, np.inf, 2.0, 0.5])
    assert select(one_class(loss=loss), 1, "hard").tolist() == [1]
    assert 1 not in select(one_class(loss=loss), 3, "easy")
    assert len(select(one_class(loss=loss), 3, "stratified", cutoff=0.0, bins=4)) == 3


@pytest.mark.parametrize("seed", range(4))
def test_stratified_covers_the_range_evenly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss = np.append(rng.exponential(size=198), [0.0, 40.0])
    budget, bins, cutoff = 60, 10, 0.1
    kept = loss[select(one_class(loss=loss), budget, "stratified", bins=bins, cutoff=cutoff)]
    stay = np.sort(loss)[:180]
    assert kept.max() <= stay[-1], "the hardest 10 % are cut off"
    edges = np.linspace(stay[0], stay[-1], bins + 1)
    there = np.histogram(stay, edges)[0]
    taken = np.histogram(kept, edges)[0]
    # Water-filling: a bin is either emptied or level with the fullest, to within one row.
    level = taken.max()
    assert ((taken == there) | (taken >= level - 1)).all()


def test_a_cutoff_gives_way_to_the_budget() -> None:
    loss = np.arange(50.0)
    kept = select(one_class(loss=loss), 48, "stratified", cutoff=0.3)
    assert kept.tolist() == list(range(48))


def test_moderate_keeps_rows_nearest_to_the_median_distance() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((41, 3)).astype(np.float32)
    distance = np.linalg.norm(features - features.mean(0), axis=1)
    expected = np.argsort(np.abs(distance - np.median(distance)))[:9]
    kept = select(one_class(loss=distance), 9, "moderate", features=features)
    assert kept.tolist() == sorted(expected.tolist())


@pytest.mark.parametrize("seed", range(3))
def test_herding_follows_the_mean(seed: int) -> None:
    features = np.random.default_rng(seed).standard_normal((30, 4))
    chosen: list[int] = []
    for _ in range(7):
        rest = [i for i in range(30) if i not in chosen]
        gaps = [np.linalg.norm(features[[*chosen, i]].mean(0) - features.mean(0)) for i in rest]
        chosen.append(rest[int(np.argmin(gaps))])
    kept = select(one_class(loss=features[:, 0]), 7, "herding", features=features)
    assert kept.tolist() == sorted(chosen)


def test_guarded_herding_is_herding_among_the_rows_that_a_classifier_confirms() -> None:
    scores, features, wrong = flipped_blobs(0, 600, 4)
    is_wrong = dict(zip(scores["id"].tolist(), wrong, strict=True))
    kept = select(scores, 60, "guarded_herding", features=features, guard=0.4)
    assert sum(is_wrong[i] for i in kept.tolist()) == 0
    plain = select(scores, 60, "herding", features=features)
    assert sum(is_wrong[i] for i in plain.tolist()) > 3
    unguarded = select(scores, 60, "guarded_herding", features=features, guard=0.0)
    np.testing.assert_array_equal(unguarded, plain)


def test_guarded_herding_sets_no_row_aside_that_the_budget_needs() -> None:
    scores, features, _ = flipped_blobs(0, 90, 3)
    kept = select(scores, 88, "guarded_herding", features=features, guard=0.9)
    assert len(kept) == 88


@pytest.mark.parametrize("samples", [1, 30])
def test_guarded_herding_of_a_single_class_is_herding(samples: int) -> None:
    features = np.random.default_rng(0).standard_normal((samples, 4))
    scores = one_class(loss=features[:, 0])
    keep = max(1, samples // 4)
    guarded, plain = (
        select(scores, keep, strategy, features=features)
        for strategy in ("guarded_herding", "herding")
    )
    np.testing.assert_array_equal(guarded, plain)


def test_a_guard_is_a_share() -> None:
    scores, features, _ = flipped_blobs(0, 30, 3)
    with pytest.raises(ValueError, match=r"guard must lie in \[0, 1\), got 1"):
        select(scores, 6, "guarded_herding", features=features, guard=1)


@pytest.mark.parametrize("seed", range(3))
def test_kcenter_takes_the_farthest_row(seed: int) -> None:
    features = np.random.default_rng(seed).standard_normal((40, 3))
    scores = one_class(loss=features[:, 0])
    first = int(select(scores, 1, "kcenter", features=features, seed=seed)[0])
    chosen = [first]
    for _ in range(7):
        gaps = np.linalg.norm(features[:, None] - features[chosen][None], axis=2).min(1)
        chosen.append(int(np.argmax(gaps)))
    kept = select(scores, 8, "kcenter", features=features, seed=seed)
    assert kept.tolist() == sorted(chosen)


def test_kcenter_and_easy_diverse_accept_identical_rows() -> None:
    features = np.ones((20, 3))
    scores = one_class(loss=np.arange(20.0))
    assert len(select(scores, 15, "kcenter", features=features)) == 15
    assert len(select(scores, 15, "easy_diverse", features=features)) == 15


def test_easy_diverse_takes_the_easiest_of_each_cluster() -> None:
    rng = np.random.default_rng(0)
    blob = np.repeat(np.arange(4), 25)
    features = (20 * np.eye(4)[blob] + rng.standard_normal((100, 4))).astype(np.float32)
    loss = rng.random(100) + blob  # the easiest of all lie in blob 0
    kept = select(one_class(loss=loss), 12, "easy_diverse", features=features, clusters=4)
    expected = [i for b in range(4) for i in (25 * b + np.argsort(loss[blob == b])[:3]).tolist()]
    assert kept.tolist() == sorted(expected)


@pytest.mark.parametrize("seed", range(2))
def test_uncertain_rows_lie_between_the_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 200)
    features = rng.standard_normal((200, 2)) * 0.3
    features[:, 0] += 2 * labels
    scores = {"id": np.arange(200), "label": labels, "loss": rng.random(200)}
    for strategy in ("entropy", "margin", "least_confidence"):
        kept = select(scores, 20, strategy, features=features, seed=seed)
        gap = np.abs(features[:, 0] - 1)
        assert gap[kept].mean() < 0.6 * gap.mean()
    flipped = labels.copy()
    flipped[:10] = 1 - flipped[:10]
    wrong = select(scores | {"label": flipped}, 20, "el2n", features=features, seed=seed)
    assert set(range(10)) <= set(wrong.tolist()), "EL2N is largest where the label is wrong"


def test_uncertainty_scores_are_functions_of_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    features = rng.standard_normal((60, 4)).astype(np.float32)
    *_, p = train_softmax_probe(standardize(features), labels, 3, 20, np.random.default_rng(5))
    found = uncertainty_scores(features, labels, np.random.default_rng(5))
    ordered = np.sort(p, axis=1)
    np.testing.assert_allclose(found["entropy"], -(p * np.log(p)).sum(1), rtol=1e-5)
    np.testing.assert_allclose(found["margin"], ordered[:, -2] - ordered[:, -1], atol=1e-6)
    np.testing.assert_allclose(found["least_confidence"], -ordered[:, -1])
    error = el2n_scores(features, labels, np.random.default_rng(5))
    assert error.shape == (60,)
    assert ((error >= 0) & (error <= 2**0.5)).all()


def test_k_means_without_scikit_learn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"lc_engine\[select\]"):
        select(one_class(loss=np.arange(9.0)), 3, "easy_diverse", features=np.ones((9, 2)))


@pytest.mark.parametrize("strategy", ["herding", "guarded_herding", "kcenter"])
def test_rows_far_from_zero_are_told_apart(strategy: str) -> None:
    scores, features, _ = flipped_blobs(0, 600, 4)
    moved = (features.astype(np.float64) + 3000).astype(np.float32)
    exact = (moved.astype(np.float64) - 3000).astype(np.float32)
    np.testing.assert_array_equal(
        select(scores, 120, strategy, features=moved), select(scores, 120, strategy, features=exact)
    )


def test_a_row_without_a_label_is_not_guarded() -> None:
    scores, features, _ = flipped_blobs(0, 600, 4)
    scores["label"] = np.where(scores["id"] % 2, scores["label"], -1)
    kept = select(scores, 0.9, "guarded_herding", features=features, guard=0.9)
    assert len(kept) == 540
    few = select(scores, 60, "guarded_herding", features=features, guard=0.5)
    plain = select(scores, 60, "herding", features=features)
    np.testing.assert_array_equal(few[few % 2 == 0], plain[plain % 2 == 0])


@pytest.mark.parametrize("strategy", ["auto", "guarded_herding", "el2n"])
def test_a_selection_uses_one_thread(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more, sums have another order, and equal rows another winner."""
    threads = pytest.importorskip("threadpoolctl")
    used: set[int] = set()

    def spied(solve: Any) -> Any:
        def call(*given: Any) -> Any:
            used.update(one["num_threads"] for one in threads.threadpool_info())
            return solve(*given)

        return call

    for file, name in (("herding", "leave_one_out_margins"), ("uncertainty", "standardize")):
        module = sys.modules[f"lc_engine.selection.strategies.{file}"]
        monkeypatch.setattr(module, name, spied(getattr(module, name)))
    scores, features, _ = flipped_blobs(0, 100, 2)
    with threads.threadpool_limits(2):
        select(scores, 20, strategy, features=features)
    assert used == {1}
