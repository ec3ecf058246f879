from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.feature_run import CLASSES, ROWS, run, scorer, write_features
from lc_engine.data.open import open_source
from lc_engine.scoring import estimate as planning
from lc_engine.scoring.estimate import Plan, plan


def test_a_probe_is_doubled_until_it_takes_long_enough(tmp_path, monkeypatch):
    write_features(tmp_path)
    source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    monkeypatch.setattr(planning, "_PROBE_SECONDS", 1e9)
    found = plan(scorer(), source)
    assert (found.rows, found.probed_rows) == (ROWS, ROWS)
    table = run(tmp_path, tmp_path / "out")
    table.write(tmp_path / "whole.parquet")
    assert found.disk_bytes == (tmp_path / "whole.parquet").stat().st_size
    monkeypatch.setattr(planning, "_PROBE_SECONDS", 0.0)
    assert plan(scorer(), source).probed_rows == 8


def test_the_batch_size_is_the_fastest_of_those_tried(tmp_path, monkeypatch):
    write_features(tmp_path)
    source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    source.__class__ = type("Small", (type(source),), {"batch_rows": 64})
    tried = []

    def timed(self, rows, batch_size):
        tried.append((rows, batch_size))
        self._table = table
        per_row = {16: 3.0, 64: 2.0, 256: 1.5}[batch_size]
        return planning._Times(rows, 0.0, 0.5 + rows * per_row)

    table = run(tmp_path, tmp_path / "out")
    monkeypatch.setattr(planning._Probe, "run", timed)
    monkeypatch.setattr(planning, "_PROBE_SECONDS", 500.0)
    found = plan(scorer(), source)
    assert tried == [
        (8, 64),
        *[(rows, 64) for rows in (8, 16, 32, 64, 128, 256)],
        (256, 16),
        (256, 256),
    ]
    assert found.batch_size == 256
    assert found.scoring_seconds == pytest.approx(1.5 * ROWS, rel=0.01)
    assert plan(scorer(), source, batch_size=64).batch_size == 64


def test_every_worker_learns_and_all_share_the_scoring(monkeypatch):
    monkeypatch.setattr(planning, "_PROBE_SECONDS", 0.0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    source = open_source((torch.randn(40, 12), torch.arange(40) % CLASSES))
    found = plan(lc.Scorer(model), source)
    assert found.learning_seconds > 0
    one, four = found.seconds(1), found.seconds(4)
    assert one - four == pytest.approx(0.75 * found.scoring_seconds)


def test_time_of_all_rows_is_the_slope_between_two_probes():
    assert planning._extrapolated((10, 1.5), (20, 2.0), 1000) == pytest.approx(50)
    assert planning._extrapolated((10, 2.0), (10, 2.0), 100) == pytest.approx(20)
    assert planning._extrapolated((10, 2.5), (20, 2.0), 100) == pytest.approx(10)


class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return 900

    def __getitem__(self, row):
        return torch.zeros(3, 10, 10), row % 2


@pytest.mark.parametrize(
    ("head", "budget", "kept"),
    [("prototype", 1 << 30, 900), ("prototype", 1200 * 500, 500), ("linear", 1 << 30, 0)],
)
def test_decoded_images_are_part_of_the_memory(monkeypatch, head, budget, kept):
    monkeypatch.setattr(planning, "_PROBE_SECONDS", 0.0)
    monkeypatch.setattr(planning, "CACHE_BYTES", budget)
    monkeypatch.setattr(planning, "peak_bytes", lambda: 0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 4), nn.Linear(4, 2))
    path = lc.LearningPath.linear(2, 0.5, 1.0)
    found = plan(lc.Scorer(model, head=head, path=path), open_source(Pictures()), batch_size=16)
    probe = 8 * (2 if kept else 1)
    assert found.peak_bytes == 1200 * (kept + 48 - probe)


def test_the_disk_is_that_of_rows_and_files(tmp_path, monkeypatch):
    write_features(tmp_path)
    source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    monkeypatch.setattr(planning, "_PROBE_SECONDS", 1e9)
    monkeypatch.setattr(planning, "_parts", lambda *_: 10)
    found = plan(scorer(), source)
    run(tmp_path, tmp_path / "out", shard_rows=100)
    real = sum(path.stat().st_size for path in (tmp_path / "out").glob("part-*"))
    assert found.disk_bytes == pytest.approx(real, rel=0.1)


def test_words_and_numbers():
    made = Plan(
        rows=7200,
        probed_rows=64,
        batch_size=32,
        start_seconds=10.0,
        learning_seconds=590.0,
        scoring_seconds=6600.0,
        peak_bytes=3 << 30,
        disk_bytes=1 << 20,
    )
    words = made.in_words(10, "cuda, node")
    assert "7,200 rows, judged by the first 64 on cuda, node:" in words
    assert "2:00:00 at 1 rows/s; with 10 workers like this one 0:21:00" in words
    assert "3,072 MiB per worker" in words
    assert made.to_dict(10)["seconds_with_workers"] == 1260.0


def test_no_rows():
    source = open_source((np.zeros((0, 3), np.float32), np.zeros(0, np.int64)))
    with pytest.raises(ValueError, match="no rows to plan for"):
        plan(scorer(), source)


def test_texts_for_a_language_model(monkeypatch):
    monkeypatch.setattr(planning, "_PROBE_SECONDS", 1e9)
    rows = tiny.random_rows(np.random.default_rng(0), 10)
    language = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer())
    found = plan(language, open_source(rows, transform=language.transform))
    assert (found.rows, found.probed_rows, found.batch_size) == (10, 10, 512)


def test_the_size_of_the_features_is_part_of_the_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "_PROBE_SECONDS", 0.0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    source = open_source((torch.randn(40, 12), torch.arange(40) % CLASSES))
    found = plan(lc.Scorer(model, path=lc.LearningPath.explicit([1.0])), source)
    assert found.feature_bytes == 40 * 16 * 2
    assert "MiB of features" in found.in_words(1, "here")
    write_features(tmp_path)
    features = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    assert plan(scorer(), features).feature_bytes == 0
