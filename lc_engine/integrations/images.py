"""Scores of a few pictures at a time, for tools that hold the data themselves."""

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


class PictureScorer:
    """An image classifier by its name: loaded by the process that first scores.

    Args:
        model: of `ModelSpec`, like `checkpoint` and `image_size`.
        prototypes: the `prototypes.npz` that `lc_engine.score` left in its `out` folder, for
            labels that the model does not know; None scores with the model's own classifier.
        path: such as "gauss:8:0.7:1.0"; None is the default of `Scorer`.
        checkpoint: a local state dict.
        image_size: side in pixels, where it is not the model's own.
        dtype: what the sub-models compute in; None is the model's own.
        device: where the model is loaded to.

    Raises:
        FileNotFoundError: there is no file `prototypes`.
        ValueError: an argument that does not fit.
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
        self, pictures: Sequence[np.ndarray | None], labels: Sequence[Any], batch_size: int = 64
    ) -> Iterator[tuple[slice, RowScores]]:
        """Score pictures; a bad one gets a status, as in `lc_engine.score`.

        Args:
            pictures: N of (H, W, 3) or (H, W) uint8, of any sizes.
            labels: N integers; anything else is a bad label.
            batch_size: pictures that go through the model at a time.

        Yields:
            The rows of a batch, and their scores.
        """
        source = open_source(_Pairs(pictures, labels), transform=self.scorer.transform)
        start = 0
        for batch in source.batches(batch_size):
            yield slice(start, start + len(batch)), self.scorer.score_rows(batch)
            start += len(batch)


class _Pairs:
    """(PIL picture, label) by row. What is no picture is refused here and so marks its row."""

    def __init__(self, pictures: Sequence[np.ndarray | None], labels: Sequence[Any]) -> None:
        self._pictures, self._labels = pictures, labels

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        picture = self._pictures[row]
        if picture is None:
            raise ValueError("there is no picture")
        return require("PIL.Image", "vision").fromarray(picture).convert("RGB"), self._labels[row]
