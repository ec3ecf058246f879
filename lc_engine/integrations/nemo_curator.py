"""NeMo Curator: stages that score documents and images, by name in its YAML.

- _target_: lc_engine.integrations.nemo_curator.LCScoreStage
  model: path/to/model

- _target_: lc_engine.integrations.nemo_curator.LCImageScoreStage
  model: efficientnet-lite0
  prototypes: scores/_prototypes.npz
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.integrations.fields import FIELDS, STATUS, score_fields

if TYPE_CHECKING:
    from lc_engine.integrations.images import ImageScorer
    from lc_engine.integrations.texts import TextScorer

_ProcessingStage: Any = require("nemo_curator.stages.base", "nemo-curator").ProcessingStage
_Resources: Any = require("nemo_curator.stages.resources", "nemo-curator").Resources
_tasks: Any = require("nemo_curator.tasks", "nemo-curator")
_DocumentBatch, _ImageBatch = _tasks.DocumentBatch, _tasks.ImageBatch


class _ScoreStage:
    """A stage with a scorer, loaded once per worker."""

    gpus: float

    def __post_init__(self) -> None:
        self.resources = _Resources(cpus=1.0, gpus=self.gpus)
        self._scorer: Any = None

    def _load(self, device: str) -> Any:
        raise NotImplementedError

    def setup(self, worker_metadata: Any = None) -> None:
        """Load the scorer."""
        self._scorer = self._load("cuda" if self.gpus else "cpu")

    def inputs(self) -> tuple[list[str], list[str]]:
        """Return the attributes and columns that a task must have."""
        return ["data"], []

    def _loaded(self) -> Any:
        if self._scorer is None:
            self.setup()
        return self._scorer


@dataclass
class LCScoreStage(_ScoreStage, _ProcessingStage[_DocumentBatch, _DocumentBatch]):  # type: ignore[misc]
    """Adds the columns `lc` (high = easy), `loss` (high = hard) and `lc_status`.

    Documents are instruction rows: Alpaca, ShareGPT, `messages`, or prompt and completion. One that
    cannot be scored stays, without a score and with the reason as its `lc_status`.

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

    def outputs(self) -> tuple[list[str], list[str]]:
        """Return the attributes and columns that a task has afterwards."""
        return ["data"], list(FIELDS)

    def _load(self, device: str) -> TextScorer:
        from lc_engine.integrations.texts import TextScorer

        return TextScorer(self.model, self.path, self.form, self.dtype, device)

    def process(self, task: Any) -> Any:
        """Score the documents of a task; its other columns are passed on unchanged.

        Scores of a stage before this one, of another model, are replaced.
        """
        pa = require("pyarrow", "table")
        scorer: TextScorer = self._loaded()
        table = task.to_pyarrow()
        found = scorer.score(table.to_pylist())
        bad = np.array([status != OK for status in found.status], dtype=bool)
        columns = {
            "lc": pa.array(found.scores.lc.numpy(), mask=bad),
            "loss": pa.array(found.scores.loss.numpy(), mask=bad),
            STATUS: pa.array(list(found.status), pa.string()),
        }
        table = table.select([name for name in table.column_names if name not in columns])
        for name, values in columns.items():
            table = table.append_column(name, values)
        return _DocumentBatch(
            dataset_name=task.dataset_name,
            data=table,
            _metadata=task._metadata,
            _stage_perf=task._stage_perf,
        )


@dataclass
class LCImageScoreStage(_ScoreStage, _ProcessingStage[_ImageBatch, _ImageBatch]):  # type: ignore[misc]
    """Adds `lc` (high = easy), `loss` (high = hard) and `lc_status` to the metadata of images.

    Reads `image_data`, (H, W, 3) uint8, and the label in the metadata. An image that cannot be
    scored stays: None as scores, and the reason as its `lc_status`.

    Attributes:
        model: of `ImageScorer`, like `prototypes`, `path`, `checkpoint`, `image_size`, `dtype`.
        prototypes: class means that `lc_engine.score` wrote; None takes the model's classifier.
        path: the sub-models.
        checkpoint: a local state dict.
        image_size: side in pixels.
        dtype: of the sub-models.
        label: the key of the metadata that holds the class, an integer.
        images_per_batch: images that go through the model at a time.
        gpus: of each worker; 0 scores on the CPU.
        name: of the stage.
        batch_size: tasks at a time.
    """

    model: str
    prototypes: str | None = None
    path: str | None = None
    checkpoint: str | None = None
    image_size: int | None = None
    dtype: str | None = None
    label: str = "label"
    images_per_batch: int = 64
    gpus: float = 0.0
    name: str = "lc_image_score"
    batch_size: int = 1

    def outputs(self) -> tuple[list[str], list[str]]:
        """Return the attributes and columns that a task has afterwards."""
        return ["data"], []

    def _load(self, device: str) -> ImageScorer:
        from lc_engine.integrations.images import ImageScorer

        return ImageScorer(
            self.model,
            self.prototypes,
            self.path,
            self.checkpoint,
            self.image_size,
            self.dtype,
            device,
        )

    def process(self, task: Any) -> Any:
        """Score the images of a task, in place."""
        scorer: ImageScorer = self._loaded()
        pixels = [image.image_data for image in task.data]
        labels = [image.metadata.get(self.label) for image in task.data]
        for rows, found in scorer.score(pixels, labels, self.images_per_batch):
            for image, fields in zip(task.data[rows], score_fields(found), strict=True):
                image.metadata |= fields
        return task
