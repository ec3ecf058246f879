"""Scores that an earlier version wrote: `scores_of_0.1.0` is a run of commit 561d9d8.

That commit's `score` wrote it with what `job` returns, on torch, its C++ core not being compiled.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import lc_engine as lc

FOLDER = Path(__file__).with_name("scores_of_0.1.0")


def job(out):
    """Score 40 digits, one of them not finite, under 4 sub-models of a linear head."""
    features, labels = load_digits(return_X_y=True)
    rows = torch.tensor(features[:40], dtype=torch.float32) / 16
    rows[7] = torch.nan
    head = torch.nn.Linear(64, 10)
    with torch.no_grad():
        head.weight.copy_(torch.linspace(0.1, 1, 640).reshape(10, 64).sin())
        head.bias.zero_()
    scorer = lc.Scorer(
        head, head="linear", path=lc.LearningPath.gauss(4), masking=lc.Masking(weights="head")
    )
    data = (rows, torch.tensor(labels[:40]))
    return lc.score(scorer, data, out=out, shard_rows=25, return_path=True)


def test_its_columns_mean_what_they_mean_today():
    table = lc.ScoreTable.read(FOLDER)
    assert table.metadata["version"] == 1
    assert table.status_counts() == {"ok": 39, "non_finite": 1}
    log_p = table.column("path_log_probs").astype(np.float64)
    weights = np.array(table.metadata["path"]["weights"])
    mean = np.exp(log_p) @ weights
    std = np.sqrt(np.exp(2 * log_p) @ weights - mean**2)
    np.testing.assert_allclose(table.column("lc"), mean, rtol=1e-6)
    np.testing.assert_allclose(table.column("loss"), -log_p @ weights, rtol=1e-6)
    np.testing.assert_allclose(table.column("lc_std"), std, rtol=1e-3, atol=1e-6)


def test_what_reads_scores_reads_it():
    table = lc.ScoreTable.read(FOLDER)
    assert len(lc.select(FOLDER, keep=0.2, gamma=0.5)) == 8
    np.testing.assert_array_equal(np.isnan(table.ranks()), table.column("status") != "ok")
    assert not table.has_features
    frame = table.to_pandas()
    assert list(frame["id"]) == list(range(40))
    assert frame.attrs["path"]["name"] == "gauss"


@pytest.fixture
def unfinished(tmp_path):
    """The run without its second part."""
    shutil.copytree(FOLDER, tmp_path / "scores")
    (tmp_path / "scores" / "part-00001-of-00002.parquet").unlink()
    return tmp_path / "scores"


def test_the_same_job_has_the_same_scores_today(unfinished, monkeypatch):
    monkeypatch.setattr("lc_engine.scoring.score.version", lambda name: "0.1.0")
    table, earlier = job(unfinished), lc.ScoreTable.read(FOLDER)
    assert {path.name for path in unfinished.iterdir()} == {path.name for path in FOLDER.iterdir()}
    assert table.metadata == earlier.metadata
    for name in ("lc", "loss", "lc_std", "path_log_probs"):
        # By the compiled core today, whose sums have another order.
        np.testing.assert_allclose(table.column(name), earlier.column(name), rtol=1e-4, atol=1e-6)


def test_a_run_is_finished_by_the_version_that_began_it(unfinished, monkeypatch):
    monkeypatch.setattr("lc_engine.scoring.score.version", lambda name: "0.2.0")
    with pytest.raises(ValueError, match=r"another run \(lc_engine: '0.1.0' -> '0.2.0'\); choose"):
        job(unfinished)
