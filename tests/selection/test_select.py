from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lc_engine as lc
from helpers.selection_tables import labels_of, random_columns, shuffled
from lc_engine.selection import STRATEGIES, select, strategies

# Every strategy: the arguments of `select` that it reads, and its own options with their defaults.
TABLE: dict[str, tuple[set[str], dict[str, object]]] = {
    "easy": ({"score"}, {}),
    "easy_diverse": ({"score", "features"}, {"clusters": None}),
    "el2n": ({"features"}, {}),
    "entropy": ({"features"}, {}),
    "flexrand": ({"score", "gamma"}, {}),
    "guarded_herding": ({"features"}, {"guard": 0.2}),
    "hard": ({"score"}, {}),
    "herding": ({"features"}, {}),
    "kcenter": ({"features"}, {}),
    "least_confidence": ({"features"}, {}),
    "margin": ({"features"}, {}),
    "moderate": ({"features"}, {}),
    "random": (set(), {}),
    "stratified": ({"score"}, {"bins": 50, "cutoff": 0.1}),
}
FEATURES = {name for name, (reads, _) in TABLE.items() if "features" in reads}
DOCS = Path(__file__).parents[2] / "docs" / "selection.md"


def test_the_table_of_strategies_and_options_is_complete() -> None:
    found = {}
    for name, function in STRATEGIES.items():
        keywords = {
            p.name: p.default
            for p in inspect.signature(function).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }
        options = {k: v for k, v in keywords.items() if v is not inspect.Parameter.empty}
        found[name] = (keywords.keys() - options.keys(), options)
        assert strategies.options(name) == list(options)
    assert found == TABLE


def test_the_docs_name_every_strategy_once() -> None:
    text = DOCS.read_text(encoding="utf-8")
    table = text[text.index("| strategy |") : text.index("`noise_guard")]
    first_cells = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(first_cells))) == sorted(STRATEGIES)


@pytest.mark.parametrize(
    ("strategy", "option", "value"),
    [(name, option, value) for name, (_, own) in TABLE.items() for option, value in own.items()],
)
def test_an_option_has_its_default(strategy: str, option: str, value: object) -> None:
    scores = random_columns(1, 120, 3)
    features = features_of(scores)
    given = select(scores, 40, strategy, features=features, **{option: value})
    np.testing.assert_array_equal(given, select(scores, 40, strategy, features=features))


def features_of(scores: dict[str, np.ndarray], width: int = 5) -> np.ndarray:
    """Two blobs per class, so that there is something to cluster."""
    rng = np.random.default_rng(0)
    centers = 3 * rng.standard_normal((2 * (scores["label"].max() + 1), width))
    which = 2 * scores["label"] + rng.integers(0, 2, len(scores["label"]))
    return (centers[which] + rng.standard_normal((len(which), width))).astype(np.float32)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=15, deadline=None)
@given(samples=st.integers(8, 90), keep=st.floats(0.07, 1), seed=st.integers(0, 3))
@pytest.mark.slow
def test_every_strategy_is_exact_and_does_not_depend_on_row_order(
    strategy: str, samples: int, keep: float, seed: int
) -> None:
    scores = random_columns(seed, samples, 3, ties=True)
    scores["label"][:2] = 0, 1  # uncertainty needs two classes
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
    scores = random_columns(0, 300)
    gamma = {"gamma": 0.3} if strategy == "flexrand" else {}
    assert not np.array_equal(
        select(scores, 0.3, strategy, seed=0, **gamma),
        select(scores, 0.3, strategy, seed=1, **gamma),
    )


@pytest.mark.parametrize("seed", range(3))
def test_each_group_gets_its_share_of_any_column(seed: int) -> None:
    scores = random_columns(seed, 400, 5)
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
    scores = random_columns(0, 300, 3)
    scores["label"] = np.repeat([0, 1, 2], [260, 30, 10])
    kept = labels_of(scores, select(scores, 60, "random", floor={2: 8}, cap={0: 30}))
    counts = np.bincount(kept, minlength=3)
    assert counts.sum() == 60
    assert counts[0] == 30
    assert counts[2] >= 8


def test_the_noise_guard_drops_suspected_noise() -> None:
    n = 200
    rng = np.random.default_rng(0)
    lc_, std = rng.uniform(0.3, 0.9, n), rng.uniform(0.05, 0.2, n)
    lc_[:20], std[:20] = 0.02, 0.01  # wrong labels: no sub-model is confident
    lc_[20:40], std[20:40] = 0.05, 0.4  # hard, but some sub-models are
    scores = {"id": np.arange(n), "label": np.zeros(n, int), "lc": lc_, "loss": -np.log(lc_),
              "lc_std": std}  # fmt: skip
    assert set(range(20)) <= set(select(scores, 40, "hard").tolist())
    guarded = select(scores, 40, "hard", noise_guard=0.1)
    assert not set(range(20)) & set(guarded.tolist())
    assert set(range(20, 40)) <= set(guarded.tolist())
    assert len(select(scores, 195, "hard", noise_guard=0.1)) == 195, "the budget comes first"
    with pytest.raises(ValueError, match="noise_guard"):
        select(scores, 40, noise_guard=1.0)


def instructions(wrong: slice, broken: slice, n: int = 200) -> dict[str, np.ndarray]:
    """Scores of rows of two sources, answers to other questions and broken texts among them."""
    rng = np.random.default_rng(1)
    loss, ifd = rng.uniform(1.0, 3.0, n), rng.uniform(0.3, 0.9, n)
    ifd[wrong] += 1
    loss[wrong] = 3.1
    ifd[broken] = 0.95
    loss[broken] += 4
    # Of another scale, so that a comparison over both sources would see the second one only.
    ifd[n // 2 :] *= 2
    return {"id": np.arange(n), "label": np.full(n, -1), "source": np.arange(n) // (n // 2),
            "lc": np.exp(-loss), "loss": loss, "lc_std": np.zeros(n), "ifd": ifd}  # fmt: skip


def test_the_noise_guard_of_instruction_data_reads_ifd_and_loss_within_each_group() -> None:
    scores = instructions(wrong=slice(20), broken=slice(100, 120))
    kept = select(scores, 0.8, "random", noise_guard=0.2, by="source")
    assert not {*range(20), *range(100, 120)} & set(kept.tolist())
    # What either alone would have dropped is kept.
    clear = instructions(wrong=slice(20), broken=slice(20, 40))
    assert not set(range(40)) & set(select(clear, 0.6, noise_guard=0.4, by="source").tolist())


def test_auto_of_instruction_data_sets_doubtful_answers_aside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scores = instructions(wrong=slice(10), broken=slice(10, 20))
    caplog.set_level(logging.INFO, logger="lc_engine.selection")
    for features in (None, np.random.default_rng(0).normal(size=(200, 4))):
        for keep in (20, 100):  # few rows, for which the rule of images would take FlexRand
            kept = select(scores, keep, features=features, by=None, seed=1)
            assert not set(range(5)) & set(kept.tolist())
            expected = select(scores, keep, "random", by=None, seed=1, noise_guard=0.1)
            np.testing.assert_array_equal(kept, expected)
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert "chose random behind a guard" in caplog.messages[0]


def test_the_hard_end_of_instruction_data_comes_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scores = instructions(wrong=slice(20), broken=slice(20, 40))
    for score in ("ifd", "loss"):
        select(scores, 20, "hard", score=score)
        assert "answers to other questions are among the hardest" in caplog.text
        caplog.clear()
    select(scores, 20, "hard", score="ifd", noise_guard=0.2)
    select(scores, 20, "easy", score="ifd")
    select({name: values for name, values in scores.items() if name != "ifd"}, 20, "hard")
    assert not caplog.records


def test_auto_logs_its_choice(caplog: pytest.LogCaptureFixture) -> None:
    scores = random_columns(0, 4000)
    with caplog.at_level(logging.INFO, logger="lc_engine.selection"):
        few = select(scores, 20, seed=1)
        many = select(scores, 0.5, seed=1)
    assert "chose flexrand 0.1" in caplog.messages[0]
    assert "chose random" in caplog.messages[1]
    assert caplog.records[1].levelname == "WARNING", "random is not what was asked for"
    with caplog.at_level(logging.INFO, logger="lc_engine.selection"):
        select(scores, 20, "flexrand", seed=1)
        select(scores, 0.5, "flexrand", seed=1)
    assert "chose gamma 0.1" in caplog.messages[-2]
    assert "chose random per group" in caplog.messages[-1]
    np.testing.assert_array_equal(few, select(scores, 20, gamma=0.1, seed=1))
    np.testing.assert_array_equal(many, select(scores, 0.5, gamma=0.0, seed=1))


def test_lc_select_is_this_function() -> None:
    scores = random_columns(0, 30)
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
        ({"strategy": "random", "objective": "as_is"}, 'objective must be "balanced" or "as-is"'),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(random_columns(0, 50), 10, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["entropy", "margin", "least_confidence"])
def test_a_single_class_has_no_uncertainty(strategy: str) -> None:
    scores = random_columns(0, 20, 1)
    with pytest.raises(ValueError, match="two classes"):
        select(scores, 5, strategy, features=np.ones((20, 2)))


def test_any_column_of_numbers_ranks_rows(caplog):
    """Its direction is that of the table's metadata, or of lc_engine's columns."""
    columns = {
        "id": np.arange(4),
        "status": ["ok"] * 4,
        "margin": [3.0, 1, 2, 0],
        "reward": [0, 3, 1, 2],
    }
    assert select(columns, 1, "easy", score="margin", by=None).tolist() == [0]
    assert not caplog.records
    assert select(columns, 1, "easy", score="reward", by=None).tolist() == [0]
    assert 'column "reward" has no known direction' in caplog.text
    with pytest.raises(ValueError, match='"status"'):
        select(columns, 1, "easy", score="status", by=None)
