from __future__ import annotations

import itertools

import numpy as np
import pytest
from torch import nn

import lc_engine as lc
from helpers.networks import Memory, Network, data
from lc_engine.backbone.early_exits import Exits
from lc_engine.path.deferred import MeasuredPath
from lc_engine.path.learning_path import LearningPath
from lc_engine.path.subset import closest_mean


@pytest.mark.parametrize("seed", range(5))
def test_columns_that_make_up_the_mean_are_found(seed):
    rng = np.random.default_rng(seed)
    sources = rng.standard_normal((300, 3))
    copies = rng.permutation(np.repeat(np.arange(3), [2, 5, 9]))
    values = sources[:, copies] + 1e-3 * rng.standard_normal((300, 16)) + rng.standard_normal(16)
    chosen, weights = closest_mean(values, np.full(16, 1 / 16), 3)
    assert sorted(copies[chosen]) == [0, 1, 2]
    np.testing.assert_allclose(weights, np.array([2, 5, 9])[copies[chosen]] / 16, atol=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_more_points_come_closer_and_weights_stay_weights(seed):
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.standard_normal((100, 20)), 1)
    omega = rng.dirichlet(np.ones(20))
    target = values @ omega
    errors = []
    for points in (1, 3, 6, 20):
        chosen, weights = closest_mean(values, omega, points)
        assert len(set(chosen)) == points
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1)
        errors.append((values[:, chosen] @ weights - target).std())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * target.std()


@pytest.mark.parametrize("seed", range(5))
def test_no_exchange_of_one_point_comes_closer(seed):
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.standard_normal((200, 12)), 1)
    omega = np.full(12, 1 / 12)

    def error(columns, weights):
        return np.var(values[:, columns] @ weights - values @ omega)

    chosen, weights = closest_mean(values, omega, 3)
    for index, k in itertools.product(range(3), set(range(12)) - set(chosen)):
        columns = [*chosen[:index], k, *chosen[index + 1 :]]
        # The best weights of sum 1, of either sign: no worse than those that are allowed.
        gaps = values[:, columns] - values[:, columns].mean(0)
        gaps = gaps - (values @ omega - (values @ omega).mean())[:, None]
        best = np.linalg.solve(gaps.T @ gaps, np.ones(3))
        if (best >= 0).all():
            assert error(columns, best / best.sum()) > 0.98 * error(chosen, weights)


def test_points_that_all_say_the_same():
    values = np.repeat(np.arange(10.0)[:, None], 4, 1)
    chosen, weights = closest_mean(values, np.full(4, 0.25), 2)
    np.testing.assert_allclose(values[:, chosen] @ weights, values[:, 0], atol=1e-6)
    assert len(closest_mean(np.zeros((5, 3)), np.full(3, 1 / 3), 2)[0]) == 2


def test_a_fitted_path_ranks_as_the_whole_one():
    source = Memory(*data(300))
    scorer = lc.Scorer(Network(), path=LearningPath.geometric(20, 0.1), temperature=0.05)
    path = LearningPath.fitted(scorer, source, K=5, samples=100)
    assert path.name == "geometric~fit5"
    assert set(path.capacities) <= set(scorer.path.capacities)
    assert LearningPath.from_dict(path.to_dict()) == path
    assert scorer.prototypes is None
    whole, few = (lc.score(s, source).column("loss") for s in (scorer, scorer.with_path(path)))
    ranks = [np.argsort(np.argsort(loss)) for loss in (whole, few)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9
    even = scorer.with_path(LearningPath.explicit(scorer.path.capacities[2::4]))
    assert np.abs(few - whole).mean() < np.abs(lc.score(even, source).column("loss") - whole).mean()


def test_what_cannot_be_fitted():
    source = Memory(*data(10))
    scorer = lc.Scorer(Network(), path=LearningPath.geometric(4, 0.1))
    with pytest.raises(ValueError, match=r"points must lie in \[1, 4\]"):
        LearningPath.fitted(scorer, source, K=5)
    one = nn.Sequential(nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match="exits bring their own points"):
        LearningPath.fitted(lc.Scorer(one, masking=Exits(("0",))), source, K=1)


@pytest.mark.parametrize(
    ("text", "points", "name"),
    [("calibrated:3", 3, "calibrated"), ("geometric:9:0.1~fit2", 2, "geometric~fit2")],
)
def test_measured_paths_are_read(text, points, name):
    wanted = MeasuredPath.parse(text)
    assert wanted is not None
    assert wanted.points == points
    weights = (1 / points,) * points
    assert wanted.matches(LearningPath(name, (0.5,) * points, weights))
    assert not wanted.matches(LearningPath("gauss", (0.5,) * points, weights))


def test_other_paths_are_not_and_mistakes_are_said():
    assert MeasuredPath.parse("gauss:8") is None
    assert MeasuredPath.parse("geometric:50:0.02~5") is None
    for text in ("calibrated", "calibrated:x", "gauss:8~fit", "gauss:8~fit0"):
        with pytest.raises(ValueError, match="with the number of points"):
            MeasuredPath.parse(text)
