"""MLflow and Weights & Biases: progress, outcome and page of a run, where experiments are kept.

    with mlflow.start_run() as run:
        tracked = MLflowRun(run.info.run_id)
        scores = lc.score(scorer, data, out="scores/", progress=tracked)
        tracked.finish(scores, lc.report(scores, out="report.html"))

Both talk to their own servers, or to a folder where they are told to stay offline.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require

if TYPE_CHECKING:
    from pathlib import Path

    from lc_engine.data.table import ScoreTable


class TrackedRun(ABC):
    """A `progress` of `lc.score` and `lc.prune` that a service of experiments shows.

    Args:
        every: seconds between two points of progress; the end of a phase is always one.
    """

    def __init__(self, every: float = 10.0) -> None:
        self._every, self._last, self._step = every, float("-inf"), 0

    def __call__(self, phase: str, done: int, rows: int) -> None:
        """Record that `done` of `rows` rows are through `phase`."""
        now = time.monotonic()
        if done < rows and now - self._last < self._every:
            return
        self._last = now
        self._metrics({f"{phase.replace(' ', '_')}_rows": float(done)}, self._step)
        self._step += 1

    def finish(self, table: ScoreTable, page: str | Path | None = None) -> None:
        """Record a table: its settings, the rows of each status, the mean scores, and its page.

        Args:
            table: of the run.
            page: an HTML file, as `lc.report` and `lc.prune` write it.
        """
        found = table.metadata
        names = ("model", "model_digest", "data_digest", "dtype")
        settings = {name: found[name] for name in names if name in found}
        self._settings(settings | {"head": found["head"]["kind"], "path": found["path"]["name"]})
        counts = {f"rows_{status}": float(n) for status, n in table.status_counts().items()}
        scored = {
            f"mean_{name}": float(np.nanmean(table.column(name)))
            for name in ("lc", "loss", "lc_std")
            if np.isfinite(table.column(name)).any()
        }
        self._metrics(counts | scored, self._step)
        if page is not None:
            self._artifact(page)

    @abstractmethod
    def _metrics(self, values: dict[str, float], step: int) -> None: ...

    @abstractmethod
    def _settings(self, values: dict[str, Any]) -> None: ...

    @abstractmethod
    def _artifact(self, page: str | Path) -> None: ...


class MLflowRun(TrackedRun):
    """A run of MLflow.

    Args:
        run_id: of a run that is there already.
        every: see `TrackedRun`.

    Raises:
        MissingExtraError: MLflow is not installed.
    """

    def __init__(self, run_id: str, every: float = 10.0) -> None:
        super().__init__(every)
        self._client, self._run_id = require("mlflow", "mlflow").MlflowClient(), run_id

    def _metrics(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run_id, name, value, step=step)

    def _settings(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self._client.log_param(self._run_id, name, value)

    def _artifact(self, page: str | Path) -> None:
        self._client.log_artifact(self._run_id, str(page))


class WandbRun(TrackedRun):
    """A run of Weights & Biases.

    Args:
        run: what `wandb.init` returned.
        every: see `TrackedRun`.
    """

    def __init__(self, run: Any, every: float = 10.0) -> None:
        super().__init__(every)
        self._run = run

    def _metrics(self, values: dict[str, float], step: int) -> None:
        self._run.log({f"lc_engine/{name}": value for name, value in values.items()})

    def _settings(self, values: dict[str, Any]) -> None:
        self._run.config.update({f"lc_engine_{name}": value for name, value in values.items()})

    def _artifact(self, page: str | Path) -> None:
        artifact = require("wandb", "wandb").Artifact("lc_engine-report", type="report")
        artifact.add_file(str(page))
        self._run.log_artifact(artifact)
