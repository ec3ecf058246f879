"""NeMo Curator: a stage that scores pictures, by name in its YAML.

- _target_: lc_engine.integrations.nemo_curator_images.LCImageScoreStage
  model: efficientnet-lite0
  prototypes: scores/prototypes.npz
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.integrations.images import PictureScorer

_stages: Any = require("nemo_curator.stages.base", "nemo-curator")
_Resources: Any = require("nemo_curator.stages.resources", "nemo-curator").Resources
_ImageBatch: Any = require("nemo_curator.tasks", "nemo-curator").ImageBatch


@dataclass
class LCImageScoreStage(_stages.ProcessingStage[_ImageBatch, _ImageBatch]):  # type: ignore[misc]
    """Adds `lc` (high = easy), `loss` (high = hard) and `lc_status` to the metadata of pictures.

    Reads `image_data`, (H, W, 3) uint8, and the label in the metadata. A picture that cannot be
    scored keeps its place: None as scores, and its reason as `lc_status`.

    Attributes:
        model: of `PictureScorer`, like `prototypes`, `path`, `checkpoint`, `image_size`, `dtype`.
        prototypes: class means that `lc_engine.score` left; None takes the model's classifier.
        path: the sub-models.
        checkpoint: a local state dict.
        image_size: side in pixels.
        dtype: what the sub-models compute in.
        label: the key of the metadata that holds the class, an integer.
        pictures: that go through the model at a time.
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
    pictures: int = 64
    gpus: float = 0.0
    name: str = "lc_image_score"
    batch_size: int = 1

    def __post_init__(self) -> None:
        self.resources = _Resources(cpus=1.0, gpus=self.gpus)
        self._scorer: PictureScorer | None = None

    def inputs(self) -> tuple[list[str], list[str]]:
        """Name what a task must have."""
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        """Name what a task has afterwards."""
        return ["data"], []

    def setup(self, worker_metadata: Any = None) -> None:
        """Make the scorer, once per worker."""
        self._scorer = PictureScorer(
            self.model,
            self.prototypes,
            self.path,
            self.checkpoint,
            self.image_size,
            self.dtype,
            "cuda" if self.gpus else "cpu",
        )

    def process(self, task: Any) -> Any:
        """Score the pictures of a task, in place."""
        if self._scorer is None:
            self.setup()
        assert self._scorer is not None
        pictures = [image.image_data for image in task.data]
        labels = [image.metadata.get(self.label) for image in task.data]
        for rows, found in self._scorer.score(pictures, labels, self.pictures):
            scores = zip(
                found.scores.lc.tolist(), found.scores.loss.tolist(), found.status, strict=True
            )
            for image, (lc, loss, status) in zip(task.data[rows], scores, strict=True):
                known = status == OK
                image.metadata |= {
                    "lc": lc if known else None,
                    "loss": loss if known else None,
                    "lc_status": status,
                }
        return task
