from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.feature_run import CLASSES, ROWS, run, scorer, write_features
from lc_engine.data.open import open_source
from lc_engine.scoring import estimate as planning
from lc_engine.scoring.cut import Cut
from lc_engine.scoring.estimate import Plan, plan
from lc_engine.scoring.score import score_source


class Clock:
    """Time that only the simulated job below spends, in seconds.

    Attributes:
        once: of the first run, for what is paid once.
        learns: whether a head learns before rows are scored.
        busy: factors of the batches, in turns.
        runs: (rows, batch size) of each run.
    """

    def __init__(self, table, *, once=0.0, run=0.0, batch=0.0, row=0.0, learns=False, busy=(1.0,)):
        self.now, self.runs = 0.0, []
        self.once, self.learns = once, learns
        self._table, self._run, self._batch, self._row = table, run, batch, row
        self._busy = itertools.cycle(busy)

    def score(self, scorer, source, out, *, batch_size, progress, one_reading, **_):
        rows = len(source)
        self.now += self._run + (0.0 if self.runs else self.once)
        self.runs.append((rows, batch_size))
        for phase in ("prototypes", "scores") if self.learns else ("scores",):
            for start in range(0, rows, batch_size):
                stop = min(start + batch_size, rows)
                self.now += next(self._busy) * (self._batch + self._row * (stop - start))
                progress(phase, stop - (stop - start) // 2, rows)  # within the batch
                progress(phase, stop, rows)
        return self._table


@pytest.fixture
def simulated(tmp_path, monkeypatch):
    write_features(tmp_path)
    table = run(tmp_path, tmp_path / "out")
    source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    monkeypatch.setattr(planning, "_feature_bytes", lambda *_: 0)

    def start(batch_rows, **job):
        source.__class__ = type("Small", (type(source),), {"batch_rows": batch_rows})
        clock = Clock(table, **job)
        monkeypatch.setattr(planning, "_now", lambda: clock.now)
        monkeypatch.setattr(planning, "score_source", clock.score)
        return clock, source

    return start


def test_what_is_paid_once_is_not_paid_per_row(simulated):
    clock, source = simulated(32, once=60.0, run=0.5, batch=0.05, row=0.01)
    found = plan(scorer(), source, batch_size=32)
    assert clock.runs[0] == (8, 32)
    assert found.start_seconds == pytest.approx(60.5, rel=0.01)
    assert found.scoring_seconds == pytest.approx(ROWS * (0.01 + 0.05 / 32))
    assert (found.learning_seconds, found.probed_batch) == (0, 32)
    assert found.range_seconds == pytest.approx((found.seconds(1),) * 2)


def test_batches_grow_to_those_of_the_run(simulated):
    clock, source = simulated(128, batch=0.2, row=0.001)
    found = plan(scorer(), source)
    sizes = [size for _, size in clock.runs[1:]]
    assert sizes[: sizes.index(128)] == [8, 64]
    assert found.probed_batch == 128
    assert found.scoring_seconds == pytest.approx(ROWS * (0.001 + 0.2 / 128), rel=0.02)


def test_batches_of_a_slow_model_stay_few(simulated):
    clock, source = simulated(128, row=2.0, batch=0.1)
    found = plan(scorer(), source)
    assert clock.runs == [(8, 128), (16, 8), (16, 8)]
    assert found.scoring_seconds == pytest.approx(ROWS * (2.0 + 0.1 / 8))


def test_batches_grow_where_a_batch_costs_more_than_its_rows(simulated):
    """As on a shared processor, where threads wait for each other in each layer."""
    clock, source = simulated(128, batch=4.0, row=0.001)
    found = plan(scorer(), source)
    assert [size for _, size in clock.runs][:5] == [128, 8, 16, 64, 128]
    assert found.probed_batch == 128
    assert found.scoring_seconds == pytest.approx(ROWS * (0.001 + 4.0 / 128), rel=0.02)


def test_a_busy_machine_is_a_range_around_the_median(simulated):
    _, source = simulated(32, row=0.01, busy=(1, 1, 1, 5, 1))
    found = plan(scorer(), source, batch_size=32)
    assert found.scoring_seconds == pytest.approx(0.01 * ROWS)
    least, most = found.range_seconds
    assert least == pytest.approx(0.01 * ROWS, rel=0.01)
    assert most > 2 * least
    assert "is the machine busy?" in found.in_words(1, "here")
    _, source = simulated(32, row=0.01)
    assert "busy" not in plan(scorer(), source, batch_size=32).in_words(1, "here")


@pytest.mark.parametrize(("batch", "best"), [(0.0, 64), (0.001, 64), (0.1, 256)])
def test_another_batch_size_is_proposed_if_it_is_clearly_faster(simulated, batch, best):
    clock, source = simulated(64, row=0.0005, batch=batch, busy=(1, 1.05, 0.95))
    found = plan(scorer(), source)
    assert {size for _, size in clock.runs} >= {16, 64, 256}
    assert found.batch_size == best
    assert plan(scorer(), source, batch_size=64).batch_size == 64


def test_learning_and_scoring_are_timed_apart(simulated):
    _, source = simulated(32, once=3.0, row=0.01, learns=True)
    found = plan(scorer(), source, batch_size=32)
    assert found.learning_seconds == pytest.approx(0.01 * ROWS)
    assert found.scoring_seconds == pytest.approx(0.01 * ROWS)
    assert found.start_seconds == pytest.approx(3.0)


@pytest.mark.parametrize("rows", [1, 5, 8, 9, 40])
def test_few_rows_are_all_probed(monkeypatch, rows):
    monkeypatch.setattr(planning, "_BUDGET_SECONDS", 0.1)
    found = plan(
        scorer(), open_source((np.ones((rows, 12), np.float32), np.arange(rows) % CLASSES))
    )
    assert (found.rows, found.probed_rows) == (rows, rows)
    assert found.scoring_seconds > 0


def test_the_disk_of_one_file_is_exact_if_all_rows_are_probed(tmp_path):
    write_features(tmp_path)
    source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    found = plan(scorer(), source)
    assert (found.rows, found.probed_rows) == (ROWS, ROWS)
    table = run(tmp_path, tmp_path / "out")
    table.write(tmp_path / "whole.parquet")
    assert found.disk_bytes == (tmp_path / "whole.parquet").stat().st_size


@pytest.mark.parametrize("parts", [1, 5])
def test_workers_share_the_scoring_of_several_parts(monkeypatch, parts):
    monkeypatch.setattr(planning, "_BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(planning, "cut_of", lambda *_, **__: Cut(8, 40 // parts))
    readings = []

    def spied(*args, one_reading, **more):
        readings.append(one_reading)
        return score_source(*args, one_reading=one_reading, **more)

    monkeypatch.setattr(planning, "score_source", spied)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    found = plan(lc.Scorer(model), open_source(torch.utils.data.Subset(Pictures(), range(40))))
    assert found.learning_seconds > 0
    one, four = found.seconds(1), found.seconds(4)
    assert one - four == pytest.approx(0.75 * found.scoring_seconds)
    assert set(readings) == {parts == 1}  # all sub-models run while the head learns


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
    monkeypatch.setattr(planning, "_BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(planning, "CACHE_BYTES", budget)
    monkeypatch.setattr(planning, "peak_bytes", lambda: 0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 4), nn.Linear(4, 2))
    path = lc.LearningPath.linear(2, 0.5, 1.0)
    found = plan(lc.Scorer(model, head=head, path=path), open_source(Pictures()), batch_size=16)
    probe = 16 * (2 if kept else 1)
    assert found.peak_bytes == 1200 * (kept + 48 - probe)


def test_the_disk_is_that_of_rows_and_files(tmp_path, monkeypatch):
    write_features(tmp_path)
    source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    monkeypatch.setattr(planning, "_parts", lambda *_: 10)
    found = plan(scorer(), source)
    run(tmp_path, tmp_path / "out", shard_rows=100)
    real = sum(path.stat().st_size for path in (tmp_path / "out").glob("part-*"))
    assert found.disk_bytes == pytest.approx(real, rel=0.1)


def test_words_and_numbers():
    made = Plan(
        rows=7200,
        probed_rows=64,
        probed_batch=16,
        batch_size=32,
        sub_models=8,
        start_seconds=10.0,
        learning_seconds=590.0,
        scoring_seconds=6600.0,
        range_seconds=(7000.0, 7400.0),
        peak_bytes=3 << 30,
        disk_bytes=1 << 20,
    )
    words = made.in_words(10, "cuda, node")
    assert "7,200 rows, judged by the first 64 on cuda, node:" in words
    assert "2:00:00 at 1 rows/s; with 10 workers like this one 0:21:00" in words
    assert "busy" not in words
    assert "8 sub-models (--path; that of prune is explicit:1)" in words
    assert "3,072 MiB per worker" in words
    assert "timed 16 rows at a time" in words
    slow = dataclasses.replace(made, rows=36, range_seconds=(6000.0, 9000.0))
    assert "at 0.005 rows/s" in slow.in_words(1, "cpu")
    assert "1:40:00 to 2:30:00" in slow.in_words(1, "cpu")
    assert made.to_dict(10)["seconds_with_workers"] == 1260.0


def test_no_rows():
    source = open_source((np.zeros((0, 3), np.float32), np.zeros(0, np.int64)))
    with pytest.raises(ValueError, match="no rows to plan for"):
        plan(scorer(), source)


def test_texts_for_a_language_model(monkeypatch):
    rows = tiny.random_rows(np.random.default_rng(0), 10)
    language = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer())
    found = plan(language, open_source(rows, transform=language.transform))
    assert (found.rows, found.probed_rows, found.batch_size) == (10, 10, 512)


def test_the_size_of_the_features_is_part_of_the_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "_BUDGET_SECONDS", 0.0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    source = open_source((torch.randn(40, 12), torch.arange(40) % CLASSES))
    found = plan(lc.Scorer(model, path=lc.LearningPath.explicit([1.0])), source)
    assert found.feature_bytes == 40 * 16 * 2
    assert "MiB of features" in found.in_words(1, "here")
    write_features(tmp_path)
    features = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    assert plan(scorer(), features).feature_bytes == 0
