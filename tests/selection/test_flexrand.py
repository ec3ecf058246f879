from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.selection_tables import labels_of, random_columns
from lc_engine.selection import select
from lc_engine.selection.problem import prepare
from lc_engine.selection.strategies.flexrand import easy_counts, easy_pool_sizes, flexrand

GAMMA = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))


@settings(deadline=None)
@given(
    st.integers(1, 400),
    st.one_of(st.floats(0.001, 1), st.integers(1, 400)),
    GAMMA,
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_the_count_is_exact(
    samples: int, keep: float, gamma: float, groups: int, seed: int
) -> None:
    scores = random_columns(seed, samples, groups)
    expected = round(keep * samples) if isinstance(keep, float) else keep
    if not 1 <= expected <= samples:
        return
    kept = select(scores, keep, gamma=gamma, seed=seed)
    assert len(kept) == expected
    assert len(np.unique(kept)) == expected
    assert np.isin(kept, scores["id"]).all()
    present = np.unique(scores["label"])
    if expected >= len(present):
        assert set(labels_of(scores, kept)) == set(present), "no class is left without a row"


@settings(deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=8), GAMMA, st.data())
def test_the_split_is_the_papers(sizes: list[int], gamma: float, data: st.DataObject) -> None:
    n = np.array(sizes)
    k = np.array([data.draw(st.integers(0, size)) for size in sizes])
    pool, easy = easy_pool_sizes(n, gamma), easy_counts(n, k, gamma, np.random.default_rng(0))
    assert ((pool >= 0) & (pool <= n)).all()
    assert ((easy >= 0) & (easy <= pool)).all()
    assert ((k - easy >= 0) & (k - easy <= n - pool)).all()
    # e = min(γ, β/2) of the class, or β − min(1 − γ, β/2) for γ > ½, to within a row; the rounding
    # of the pools may add another.
    wanted = (
        np.minimum(gamma * n, k / 2) if gamma <= 0.5 else k - np.minimum((1 - gamma) * n, k / 2)
    )
    assert (np.abs(easy - wanted) < 2).all()


def test_the_easy_part_is_exact_over_the_classes() -> None:
    # One row per class: easy in half of the classes, where rounding each would give none.
    sizes, counts = np.full(10, 100), np.ones(10, dtype=np.int64)
    assert easy_counts(sizes, counts, 0.2, np.random.default_rng(0)).sum() == 5


@pytest.mark.parametrize("seed", range(3))
def test_rows_come_from_the_pools_uniformly(seed: int) -> None:
    n, keep, gamma = 100, 20, 0.25
    rng = np.random.default_rng(seed)
    hard = rng.permutation(n)
    scores = {"id": np.arange(n), "label": np.zeros(n, int), "loss": hard}
    problem = prepare(scores, keep, by="label", floor=None, cap=None, noise_guard=0.0)
    draws = np.zeros(n)
    runs = 600
    for run in range(runs):
        draw_rng = np.random.default_rng(1000 * seed + run)
        kept = problem.rows.ids[flexrand(problem, draw_rng, score="loss", gamma=gamma)]
        draws[hard[kept]] += 1
    last = select(scores, keep, gamma=gamma, seed=1000 * seed + runs - 1)
    np.testing.assert_array_equal(np.sort(kept), last)
    easy, difficult = draws[:25] / runs, draws[25:] / runs
    assert easy.sum() == pytest.approx(10), "half of the budget is easy"
    assert difficult.sum() == pytest.approx(10)
    # Each row's rate is a binomial mean: within five standard deviations.
    for rates, pool in ((easy, 25), (difficult, 75)):
        rate = 10 / pool
        assert np.abs(rates - rate).max() < 5 * np.sqrt(rate * (1 - rate) / runs)


@pytest.mark.parametrize("seed", range(3))
def test_one_pool_is_the_random_draw(seed: int) -> None:
    scores = random_columns(seed, 90, 7)
    random = select(scores, 0.3, "random", seed=seed)
    for gamma in (0.0, 1.0):
        np.testing.assert_array_equal(select(scores, 0.3, gamma=gamma, seed=seed), random)
    assert not np.array_equal(select(scores, 0.3, gamma=0.2, seed=seed), random)


def test_a_small_pool_is_used_up_before_the_other_gives_more() -> None:
    n = 100
    scores = {"id": np.arange(n), "label": np.zeros(n, int), "loss": np.arange(n)}
    kept = select(scores, 60, gamma=0.1)
    assert set(range(10)) <= set(kept.tolist())
    kept = select(scores, 60, gamma=0.9)
    assert set(range(90, 100)) <= set(kept.tolist())


def test_lc_and_loss_point_opposite_ways() -> None:
    n = 40
    ids = np.arange(n)
    by_loss = {"id": ids, "label": np.zeros(n, int), "loss": ids}
    by_lc = {"id": ids, "label": np.zeros(n, int), "lc": -ids}
    expected = select(by_loss, 8, gamma=0.1, seed=3)
    np.testing.assert_array_equal(select(by_lc, 8, gamma=0.1, seed=3, score="lc"), expected)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan"), "best", True])
def test_a_gamma_out_of_range_is_refused(gamma: object) -> None:
    with pytest.raises(ValueError, match="gamma"):
        select(random_columns(0, 20), 5, gamma=gamma)  # type: ignore[arg-type]
