from __future__ import annotations

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers.networks import Memory, Network, data
from lc_engine.path.learning_path import LearningPath
from lc_engine.selection import select

COLUMNS = ("id", "label", "lc", "loss", "lc_std", "status", "path_log_probs")


def scorer(points=5, head="prototype", **more):
    path = LearningPath.clenshaw_curtis(points, 0.1, 1.0)
    return lc.Scorer(Network(), head=head, path=path, temperature=0.05, **more)


@pytest.mark.parametrize("head", ["prototype", "knn"])
@pytest.mark.parametrize("points", [5, 9, 17])
def test_an_extended_run_is_the_run_along_the_longer_path(head, points, tmp_path, monkeypatch):
    x, y = data(40)
    x[3] = torch.inf
    source = Memory(x, y)
    whole = lc.score(scorer(points, head), source, return_path=True)
    short = lc.score(scorer(5, head), source, return_path=True)
    run = []
    original = lc.Scorer.score_rows
    monkeypatch.setattr(
        lc.Scorer,
        "score_rows",
        lambda self, *given, **options: (
            run.append(len(self.path)) or original(self, *given, **options)
        ),
    )
    longer = lc.extend(short, scorer(points, head), source, tmp_path / "more")
    assert set(run) == {max(1, points - 5)}
    for name in COLUMNS:
        found, want = longer.column(name), whole.column(name)
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, want, atol=1e-6, rtol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found, want, err_msg=name)
    assert longer.metadata["path"] == whole.metadata["path"]
    assert longer.status_counts() == {"ok": 39, "non_finite": 1}


def test_another_run_is_not_extended():
    source = Memory(*data(12))
    short = lc.score(scorer(3), source, return_path=True)
    with pytest.raises(ValueError, match="no path_log_probs"):
        lc.extend(lc.score(scorer(3), source), scorer(5), source)
    with pytest.raises(ValueError, match=r"of another run .*masking\.scope"):
        lc.extend(short, scorer(5, masking=lc.Masking(scope="layer")), source)
    with pytest.raises(ValueError, match=r"of another run .*head\.kind"):
        lc.extend(short, scorer(5, "knn"), source)
    with pytest.raises(ValueError, match="geometric path cannot be extended"):
        lc.extend(short, scorer(5).with_path(LearningPath.geometric(4, 0.1)), source)


@pytest.mark.parametrize("strategy", ["easy", "hard", "flexrand"])
@pytest.mark.parametrize("score_column", ["lc", "loss"])
def test_rows_far_from_the_border_get_fewer_points(strategy, score_column):
    x, y = data(200)
    x[7] = torch.inf
    source = Memory(x, y)
    settings = {"gamma": 0.4, "by": "label"}
    whole = lc.score(scorer(17), source)
    found = lc.score_until_selected(
        scorer(17), source, 0.3, strategy, score_column=score_column, probability=0.02, **settings
    )
    points = found.column("points")
    assert np.isnan(points).tolist() == [i == 7 for i in range(200)]
    assert set(points[~np.isnan(points)].tolist()) <= {5, 9, 17}
    assert np.nanmean(points) < 14
    assert found.status_counts() == whole.status_counts()
    full = points == 17
    np.testing.assert_allclose(found.column("lc")[full], whole.column("lc")[full], atol=1e-5)
    if strategy != "flexrand":
        kept = [select(t, 0.3, strategy, by="label", score=score_column) for t in (whole, found)]
        assert len(np.intersect1d(*kept)) >= 0.95 * len(kept[0])


def test_a_small_probability_leaves_no_row_unsure():
    source = Memory(*data(60))
    whole = lc.score(scorer(9), source)
    found = lc.score_until_selected(scorer(9), source, 0.5, "easy", probability=1e-300, by=None)
    sure = found.column("points") == 5
    np.testing.assert_allclose(found.column("lc")[~sure], whole.column("lc")[~sure], atol=1e-5)
    assert sure.mean() < 0.3


def test_everything_kept_needs_no_second_look():
    source = Memory(*data(30))
    found = lc.score_until_selected(scorer(9), source, 1.0, "easy")
    assert (found.column("points") == 5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "stratified"}, 'must be "easy", "hard" or "flexrand"'),
        ({"probability": 0.5}, "probability must lie in"),
        ({"strategy": "flexrand", "gamma": "auto"}, "gamma must be a number"),
    ],
)
def test_what_cannot_be_decided_is_refused(change, message):
    settings = {"strategy": "easy"} | change
    with pytest.raises(ValueError, match=message):
        lc.score_until_selected(scorer(9), Memory(*data(12)), 0.5, **settings)


def test_paths_that_hold_no_coarser_rule():
    with pytest.raises(ValueError, match="at least 5 points"):
        lc.score_until_selected(scorer(3), Memory(*data(12)), 0.5)
