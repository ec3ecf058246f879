"""A scorer of images that another framework holds in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lc_engine._util.extras import require
from lc_engine.data.open import open_source
from lc_engine.heads.prototype import Prototypes
from lc_engine.models.load import ModelSpec
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from lc_engine.data.protocols import RowScores


class ImageScorer:
    """An image classifier by name, loaded by the process that first scores.

    Args:
        model: of `ModelSpec`, like `checkpoint` and `image_size`.
        prototypes: the `_prototypes.npz` that `lc_engine.score` wrote to its `out` folder, for
            labels that the model was not trained on; None scores with the model's own classifier.
        path: such as "gauss:8:0.7:1.0"; None is the default of `Scorer`.
        checkpoint: a local state dict.
        image_size: side in pixels, if not the model's own.
        dtype: of the sub-models; None is the model's own.
        device: where the model is loaded to.

    Raises:
        FileNotFoundError: there is no file `prototypes`.
        ValueError: an invalid argument.
    """

    def __init__(
        self,
        model: str,
        prototypes: str | None = None,
        path: str | None = None,
        checkpoint: str | None = None,
        image_size: int | None = None,
        dtype: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.scorer = Scorer(
            ModelSpec(model, checkpoint=checkpoint, image_size=image_size),
            head="linear" if prototypes is None else "prototype",
            path=None if path is None else LearningPath.parse(path),
            dtype=cast("Any", dtype),
            device=device,
        )
        if prototypes is not None:
            self.scorer.use_prototypes(Prototypes.load(Path(prototypes)))

    def score(
        self, images: Sequence[np.ndarray | None], labels: Sequence[Any], batch_size: int = 64
    ) -> Iterator[tuple[slice, RowScores]]:
        """Score images; an invalid one gets a status, as in `lc_engine.score`.

        Args:
            images: N of (H, W, 3) or (H, W) uint8, of any sizes.
            labels: N integers; anything else is a bad label.
            batch_size: images that go through the model at a time.

        Yields:
            The rows of a batch, and their scores.
        """
        source = open_source(_Pairs(images, labels), transform=self.scorer.transform)
        start = 0
        for batch in source.batches(batch_size):
            yield slice(start, start + len(batch)), self.scorer.score_rows(batch)
            start += len(batch)


class _Pairs:
    """(PIL image, label) by row; an error here becomes the status of the row."""

    def __init__(self, images: Sequence[np.ndarray | None], labels: Sequence[Any]) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        pixels = self._images[row]
        if pixels is None:
            raise ValueError("there is no image")
        return require("PIL.Image", "vision").fromarray(pixels).convert("RGB"), self._labels[row]
