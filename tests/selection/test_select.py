from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lc_engine as lc
from helpers.selection_tables import labels_of, mapping, shuffled
from lc_engine.selection import STRATEGIES, select

FEATURES = {"easy_diverse", "el2n", "entropy", "herding", "kcenter", "least_confidence", "margin",
            "moderate"}  # fmt: skip


def features_of(scores: dict[str, np.ndarray], width: int = 5) -> np.ndarray:
    """Two blobs per class, so that there is something to cluster."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((2 * (scores["label"].max() + 1), width))
    which = 2 * scores["label"] + rng.integers(0, 2, len(scores["label"]))
    return (centres[which] + rng.standard_normal((len(which), width))).astype(np.float32)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=15, deadline=None)
@given(samples=st.integers(8, 90), keep=st.floats(0.07, 1), seed=st.integers(0, 3))
def test_every_strategy_is_exact_and_blind_to_row_order(
    strategy: str, samples: int, keep: float, seed: int
) -> None:
    scores = mapping(seed, samples, 3, ties=True)
    scores["label"][:2] = 0, 1  # an uncertainty needs two classes
    features = features_of(scores) if strategy in FEATURES else None
    kept = select(scores, keep, strategy, seed=seed, features=features)
    assert len(np.unique(kept)) == round(keep * samples)
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(
        kept, select(scores, keep, strategy, seed=seed, features=features)
    )
    if features is None:
        (mixed,), mixed_features = shuffled(scores, seed), None
    else:
        mixed, mixed_features = shuffled(scores, seed, features)
    np.testing.assert_array_equal(
        kept, select(mixed, keep, strategy, seed=seed, features=mixed_features)
    )
    if keep == 1.0:
        np.testing.assert_array_equal(kept, np.sort(scores["id"]))


@pytest.mark.parametrize("strategy", ["random", "flexrand", "stratified"])
def test_another_seed_draws_another_subset(strategy: str) -> None:
    scores = mapping(0, 300)
    gamma = {"gamma": 0.3} if strategy == "flexrand" else {}
    assert not np.array_equal(
        select(scores, 0.3, strategy, seed=0, **gamma),
        select(scores, 0.3, strategy, seed=1, **gamma),
    )


@pytest.mark.parametrize("seed", range(3))
def test_each_group_gets_its_share_of_any_column(seed: int) -> None:
    scores = mapping(seed, 400, 5)
    scores["source"] = np.random.default_rng(seed).choice(["web", "book", "code"], 400)
    where = dict(zip(scores["id"].tolist(), scores["source"], strict=True))
    kept = select(scores, 0.25, "hard", by="source")
    for source in ("web", "book", "code"):
        quota = 0.25 * (scores["source"] == source).sum()
        assert abs(sum(where[i] == source for i in kept.tolist()) - quota) < 1
    whole = select(scores, 0.25, "hard", by=None)
    threshold = np.sort(scores["loss"])[-len(whole)]
    assert set(whole) == set(scores["id"][scores["loss"] >= threshold])


def test_floors_and_caps_reach_the_groups_they_name() -> None:
    scores = mapping(0, 300, 3)
    scores["label"] = np.repeat([0, 1, 2], [260, 30, 10])
    kept = labels_of(scores, select(scores, 60, "random", floor={2: 8}, cap={0: 30}))
    counts = np.bincount(kept, minlength=3)
    assert counts.sum() == 60
    assert counts[0] == 30
    assert counts[2] >= 8


def test_the_noise_guard_sets_the_unbelieved_aside() -> None:
    n = 200
    rng = np.random.default_rng(0)
    lc_, std = rng.uniform(0.3, 0.9, n), rng.uniform(0.05, 0.2, n)
    lc_[:20], std[:20] = 0.02, 0.01  # wrong labels: no sub-model believes them
    lc_[20:40], std[20:40] = 0.05, 0.4  # hard, but some sub-models do
    scores = {"id": np.arange(n), "label": np.zeros(n, int), "lc": lc_, "loss": -np.log(lc_),
              "lc_std": std}  # fmt: skip
    assert set(range(20)) <= set(select(scores, 40, "hard").tolist())
    guarded = select(scores, 40, "hard", noise_guard=0.1)
    assert not set(range(20)) & set(guarded.tolist())
    assert set(range(20, 40)) <= set(guarded.tolist())
    assert len(select(scores, 195, "hard", noise_guard=0.1)) == 195, "the budget comes first"
    with pytest.raises(ValueError, match="noise_guard"):
        select(scores, 40, noise_guard=1.0)


def test_auto_says_what_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    scores = mapping(0, 4000)
    with caplog.at_level(logging.INFO, logger="lc_engine.selection"):
        few = select(scores, 20, seed=1)
        many = select(scores, 0.5, seed=1)
    assert "chose gamma 0.1" in caplog.messages[0]
    assert "chose random per group" in caplog.messages[1]
    assert caplog.records[1].levelname == "WARNING", "not doing what was asked for is said aloud"
    np.testing.assert_array_equal(few, select(scores, 20, gamma=0.1, seed=1))
    np.testing.assert_array_equal(many, select(scores, 0.5, gamma=0.0, seed=1))


def test_the_package_is_the_function_too() -> None:
    scores = mapping(0, 30)
    np.testing.assert_array_equal(lc.select(scores, 5, gamma=0.1), select(scores, 5, gamma=0.1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "best"}, "one of easy, easy_diverse, .*'best'"),
        ({"strategy": "easy", "gamma": 0.2}, "gamma is an argument of flexrand"),
        ({"strategy": "easy", "bins": 3}, "takes no option 'bins'; it takes none"),
        ({"strategy": "stratified", "bin": 3}, "no option 'bin'; it takes bins, cutoff"),
        ({"strategy": "stratified", "bins": 0}, "bins must be at least 1"),
        ({"strategy": "stratified", "cutoff": 1.0}, "cutoff must lie"),
        ({"strategy": "herding"}, "needs features="),
        ({"strategy": "herding", "features": np.zeros((3, 2))}, "one row per row of scores"),
        ({"strategy": "herding", "features": np.full((50, 2), np.inf)}, "not finite at id"),
        ({"strategy": "easy_diverse", "features": np.zeros((50, 2)), "clusters": 0}, "clusters"),
        ({"strategy": "easy", "score": "id"}, "score must be"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(mapping(0, 50), 10, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["entropy", "margin", "least_confidence"])
def test_a_single_class_has_no_uncertainty(strategy: str) -> None:
    scores = mapping(0, 20, 1)
    with pytest.raises(ValueError, match="two classes"):
        select(scores, 5, strategy, features=np.ones((20, 2)))
