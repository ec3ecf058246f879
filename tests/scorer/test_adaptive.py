"""Paths with few points, with an error estimate, and placed where the model changes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers.networks import Memory, Network, SmallNet, data
from lc_engine import presets
from lc_engine.backbone import dtypes
from lc_engine.backbone.early_exits import Exits
from lc_engine.path.learning_path import LearningPath


@pytest.mark.parametrize("points", [1, 2, 5, 8])
@pytest.mark.parametrize(
    ("path", "variable"),
    [
        (LearningPath.geometric(50, 0.02), np.log),
        (LearningPath.linear(50, 0.02, 1.0), lambda r: r),
        (
            LearningPath.explicit([0.9, 0.5, 0.4, 0.35, 0.3, 0.2, 0.1, 0.05, 0.04], range(1, 10)),
            lambda r: r,
        ),
    ],
)
def test_condensed_points_are_exact_for_polynomials(path, variable, points):
    short = path.condensed(points)
    assert len(short) == points
    for degree in range(2 * points):
        mean, few = (
            np.dot(p.weights, variable(np.array(p.capacities)) ** degree) for p in (path, short)
        )
        assert few == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert path.capacities[0] >= short.capacities[0] >= short.capacities[-1] >= path.capacities[-1]


def test_condensing_to_all_points_or_none():
    path = LearningPath.geometric(4, 0.1)
    assert path.condensed(4) is path
    with pytest.raises(ValueError, match=r"points must lie in \[1, 4\]"):
        path.condensed(5)
    assert LearningPath.parse("geometric:50:0.02~5") == LearningPath.geometric().condensed(5)


@pytest.mark.parametrize("points", [3, 5, 9, 17])
def test_clenshaw_curtis_is_exact_and_nested(points):
    path = LearningPath.clenshaw_curtis(points, 0.2, 0.8)
    r = np.array(path.capacities)
    for degree in range(points):
        exact = (0.8 ** (degree + 1) - 0.2 ** (degree + 1)) / (degree + 1) / 0.6
        assert np.dot(path.weights, r**degree) == pytest.approx(exact, rel=1e-9)
    for places, weights in path.levels():
        coarse = LearningPath.clenshaw_curtis(len(places), 0.2, 0.8)
        np.testing.assert_allclose(r[list(places)], coarse.capacities, atol=1e-12)
        np.testing.assert_allclose(weights, coarse.weights)
    assert path.levels()[-1][0] == tuple(range(points))
    with pytest.raises(ValueError, match="K must be 3, 5, 9, 17"):
        LearningPath.clenshaw_curtis(points - 1)
    with pytest.raises(ValueError, match="holds no coarser rule"):
        LearningPath.gauss().levels()


@pytest.mark.parametrize("head", ["prototype", "linear"])
@pytest.mark.parametrize("tol", [1e-9, 0.002, 0.5])
def test_a_row_gets_the_points_that_its_tolerance_takes(head, tol):
    x, y = data(40)
    path = LearningPath.clenshaw_curtis(9, 0.1, 1.0)
    common = {"head": head, "temperature": 0.05 if head == "prototype" else 1.0}
    source = Memory(x, y)
    whole = lc.Scorer(Network(), path=path, **common)
    table = lc.score(whole, source, return_path=True)
    short = lc.score(lc.Scorer(Network(), path=path, tol=tol, **common), source, return_path=True)
    points, error = short.column("points"), short.column("error")
    assert set(points.tolist()) <= {5, 9}
    assert ((points == 9) | (error <= tol)).all()
    p = np.exp(table.column("path_log_probs").astype(np.float64))
    by_size = {len(places): p[:, list(places)] @ weights for places, weights in path.levels()}
    want = np.where(points == 9, by_size[9], by_size[5])
    np.testing.assert_allclose(short.column("lc"), want, atol=1e-5)
    before = np.where(points == 9, by_size[5], by_size[3])
    np.testing.assert_allclose(error, np.abs(want - before), atol=1e-5)
    assert np.isnan(short.column("path_log_probs")[points == 5][:, 1::2]).all()
    if tol == 0.5:
        assert (points == 5).all()
    with pytest.raises(ValueError, match="holds no coarser rule"):
        lc.Scorer(Network(), path=LearningPath.gauss(), tol=tol)


def test_calibration_measures_the_model(lite0, images):
    inputs, labels = images[0], torch.arange(20) % 2
    scorer = lc.Scorer(lite0, temperature=0.01)
    path = LearningPath.calibrated(scorer, (inputs, labels), K=3, samples=12)
    assert path.name == "calibrated"
    assert len(path.curve) == 16
    assert path.curve[0][1] > path.curve[-1][1]
    # Masked below a half, this network tells nothing apart: no point is wasted there.
    assert path.capacities[0] > 0.6
    assert scorer.prototypes is None
    with pytest.raises(ValueError, match="exits bring their own points"):
        LearningPath.calibrated(lc.Scorer(lite0, masking=Exits()), (inputs, labels))


def use_auto_dtype(monkeypatch, dtype):
    monkeypatch.setattr(dtypes, "auto_dtype", lambda device: dtype)


def test_auto_dtype_is_settled_once_for_a_run(lite0, images, tmp_path, monkeypatch):
    data = (images[0], torch.arange(20) % 2)
    scorer = lc.Scorer(lite0, dtype="auto", path=LearningPath.explicit([1.0, 0.9]))
    table = lc.score(scorer, data, tmp_path / "scores", shard_rows=8)
    chosen = table.metadata["dtype"]
    assert chosen in ("float32", "bfloat16")
    # Where it continues on another processor, its dtype stays.
    other = {"float32": "bfloat16", "bfloat16": "float32"}[chosen]
    use_auto_dtype(monkeypatch, other)
    whole = table.column("lc")
    sorted((tmp_path / "scores").glob("part-*"))[1].unlink()
    again = lc.score(scorer, data, tmp_path / "scores", shard_rows=8)
    assert again.metadata["dtype"] == chosen
    np.testing.assert_allclose(again.column("lc"), whole, atol=1e-6)
    assert lc.score(scorer, data).metadata["dtype"] == other
    assert scorer.dtype == "auto"


@pytest.mark.parametrize("head", ["prototype", "linear", "knn"])
def test_a_scorer_is_not_changed_by_scoring(head, monkeypatch):
    use_auto_dtype(monkeypatch, "bfloat16")
    x, y = data(20)
    path = LearningPath.explicit([1.0, 0.9])
    scorer = lc.Scorer(SmallNet(0), head=head, dtype="auto", path=path)
    before = scorer.describe()
    scorer.fit(Memory(x, y))
    found = [scorer.score_batch((x, y)).lc for _ in range(2)]
    assert torch.equal(*found)
    assert scorer.dtype == pickle.loads(pickle.dumps(scorer)).dtype == "auto"
    assert {**scorer.describe(), "head": None} == {**before, "head": None}
    rounded = lc.Scorer(SmallNet(0), head=head, dtype="bfloat16", path=path)
    assert torch.equal(rounded.fit(Memory(x, y)).score_batch((x, y)).lc, found[0])
    scorer.dtype = "float32"
    assert not torch.equal(scorer.score_batch((x, y)).lc, found[0])


def test_bfloat16_ranks_as_float32(lite0, images):
    inputs = torch.cat([images[0], images[0].flip(3), images[0].roll(8, 2)])
    labels = (torch.arange(20) % 4).repeat(3)
    lcs = []
    for dtype in ("float32", "bfloat16"):
        scorer = lc.Scorer(
            lite0, dtype=dtype, path=LearningPath.explicit([1.0, 0.9]), logit="cosine"
        )
        lcs.append(lc.score(scorer, (inputs, labels)).column("lc"))
    ranks = [np.argsort(np.argsort(values)) for values in lcs]
    assert np.corrcoef(*ranks)[0, 1] > 0.99


def test_presets_are_the_published_methods(models):
    scorer = presets.dlc2025(models["resnet18"])
    assert scorer.path == LearningPath.geometric(50, 0.02)
    assert (scorer.head, scorer.logit) == ("prototype", "inverse_distance")
    early = presets.lc2024(models["resnet18"])
    assert early.head == "knn"
    assert len(early.path) == 8


def test_parity_makes_one_number_of_a_transformer():
    from helpers.networks import tiny_vit

    model, x, y = tiny_vit(), torch.randn(6, 3, 32, 32), torch.arange(6) % 2
    path = LearningPath.explicit([1.0, 0.5])
    right, quirk = (
        presets.dlc2025(model, parity=parity).with_path(path).fit(Memory(x, y))
        for parity in (False, True)
    )
    assert right.prototypes.means.shape == (2, 24)
    assert quirk.prototypes.means.shape == (2, 1)
    with torch.inference_mode():
        want = model.forward_features(x).mean((1, 2))
    torch.testing.assert_close(
        quirk.prototypes.means[:, 0], torch.stack([want[y == c].mean() for c in (0, 1)]),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    names = set(right._prepare().family.weights)
    assert not any("patch_embed" in name or name.startswith("head") for name in names)
    with pytest.raises(ValueError, match="parity"):
        presets.dlc2025(
            torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3)), parity=True
        )
