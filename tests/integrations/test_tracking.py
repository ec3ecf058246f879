"""MLflow and Weights & Biases, each offline: what they have stored after a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lc_engine as lc
from lc_engine.integrations.tracking import MLflowRun, TrackedRun, WandbRun


class Recorded(TrackedRun):
    def __init__(self, every):
        super().__init__(every)
        self.points, self.settings, self.pages = [], {}, []

    def _metrics(self, values, step):
        self.points.append((step, values))

    def _settings(self, values):
        self.settings |= values

    def _artifact(self, page):
        self.pages.append(page)


def scored(progress):
    rng = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = torch.nn.Linear(6, 3)
    features = rng.standard_normal((30, 6)).astype(np.float32)
    features[4, 0] = np.nan
    masking = lc.Masking(weights="head")
    scorer = lc.Scorer(head, head="linear", masking=masking, path=lc.LearningPath.gauss(3))
    return lc.score(scorer, (features, np.arange(30) % 3), progress=progress)


def expected(table):
    ok = table.column("status") == "ok"
    return {
        "rows_ok": 29.0,
        "rows_non_finite": 1.0,
        **{f"mean_{name}": table.column(name)[ok].mean() for name in ("lc", "loss", "lc_std")},
    }


def test_the_last_point_of_a_phase_is_kept_and_those_between_are_thinned():
    run = Recorded(every=1000)
    for done in (0, 10, 20, 30):
        run("scoring", done, 30)
    assert run.points == [(0, {"scoring_rows": 0.0}), (1, {"scoring_rows": 30.0})]


def test_a_table_is_summed_up():
    run = Recorded(every=0)
    table = scored(run)
    before = len(run.points)
    run.finish(table, "report.html")
    assert run.points[before - 1][1] == {"scores_rows": 30.0}
    ((step, values),) = run.points[before:]
    assert step == before
    assert values == pytest.approx(expected(table), rel=1e-6)
    assert (run.settings["head"], run.pages) == ("linear", ["report.html"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, in MLflow's own queries
def test_mlflow_stores_the_run(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    page = tmp_path / "report.html"
    page.write_text("<p>page</p>", encoding="utf-8")
    mlflow.create_experiment("pruning", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("pruning")
    with mlflow.start_run() as started:
        run = MLflowRun(started.info.run_id, every=0)
        table = scored(run)
        run.finish(table, page)
    stored = mlflow.get_run(started.info.run_id)
    assert stored.data.metrics == pytest.approx({"scores_rows": 30.0, **expected(table)}, rel=1e-6)
    assert stored.data.params["head"] == "linear"
    assert [path.name for path in (tmp_path / "artifacts").rglob("*.html")] == ["report.html"]


def test_wandb_stores_the_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "report.html"
    page.write_text("<p>page</p>", encoding="utf-8")
    with wandb.init(mode="offline", dir=tmp_path, project="pruning") as started:
        run = WandbRun(started, every=0)
        table = scored(run)
        run.finish(table, page)
        summary = {key: started.summary[f"lc_engine/{key}"] for key in expected(table)}
    assert summary == pytest.approx(expected(table), rel=1e-6)
    assert started.config["lc_engine_head"] == "linear"
    assert list(tmp_path.rglob("*.wandb"))
