"""NeMo Curator: a stage that scores instruction documents, by name in its YAML.

- _target_: lc_engine.integrations.nemo_curator.LCScoreStage
  model: path/to/model
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.integrations.texts import TextScorer

_stages: Any = require("nemo_curator.stages.base", "nemo-curator")
_Resources: Any = require("nemo_curator.stages.resources", "nemo-curator").Resources
_DocumentBatch: Any = require("nemo_curator.tasks", "nemo-curator").DocumentBatch

_SCORES = ("lc", "loss", "lc_status")


@dataclass
class LCScoreStage(_stages.ProcessingStage[_DocumentBatch, _DocumentBatch]):  # type: ignore[misc]
    """Adds the columns `lc` (high = easy), `loss` (high = hard) and `lc_status`.

    Documents are instruction rows: Alpaca, ShareGPT, `messages`, or prompt and completion. One that
    cannot be scored keeps its place, without a score and with its reason as `lc_status`.

    Attributes:
        model: of `TextScorer`, like `path`, `form` and `dtype`.
        path: the sub-models.
        form: of the rows.
        dtype: of the weights.
        gpus: of each worker; 0 scores on the CPU.
        name: of the stage.
        batch_size: tasks at a time; all documents of a task are scored together.
    """

    model: str
    path: str | None = None
    form: str | None = None
    dtype: str = "auto"
    gpus: float = 0.0
    name: str = "lc_score"
    batch_size: int = 1

    def __post_init__(self) -> None:
        self.resources = _Resources(cpus=1.0, gpus=self.gpus)
        self._scorer: TextScorer | None = None

    def inputs(self) -> tuple[list[str], list[str]]:
        """Name what a task must have."""
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        """Name what a task has afterwards."""
        return ["data"], list(_SCORES)

    def setup(self, worker_metadata: Any = None) -> None:
        """Make the scorer, once per worker."""
        device = "cuda" if self.gpus else "cpu"
        self._scorer = TextScorer(self.model, self.path, self.form, self.dtype, device)

    def process(self, task: Any) -> Any:
        """Score the documents of a task; its other columns are passed on as they are."""
        pa = require("pyarrow", "table")
        if self._scorer is None:
            self.setup()
        assert self._scorer is not None
        table = task.to_pyarrow()
        found = self._scorer.score(table.to_pylist())
        bad = np.array([status != OK for status in found.status])
        columns = {
            "lc": pa.array(found.scores.lc.numpy(), mask=bad),
            "loss": pa.array(found.scores.loss.numpy(), mask=bad),
            "lc_status": pa.array(list(found.status), pa.string()),
        }
        for name, values in columns.items():
            table = table.append_column(name, values)
        return _DocumentBatch(
            dataset_name=task.dataset_name,
            data=table,
            _metadata=task._metadata,
            _stage_perf=task._stage_perf,
        )
