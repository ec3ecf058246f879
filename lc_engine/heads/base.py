"""Heads: from the output of a model to the probability of the label, for each sub-model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lc_engine.ops import PathScores, path_scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    import numpy as np
    from torch import Tensor

    from lc_engine.backbone.interface import Views
    from lc_engine.data.fields import Inputs


@dataclass(frozen=True)
class Rows:
    """Rows of a batch that can be scored.

    Attributes:
        inputs: (N, …) on the model's device.
        classes: (N,) as `Head.class_index` returns them, on the same device.
        ids: (N,) names of the rows.
        targets: N things that rows are compared with where that is no class, on the host.
    """

    inputs: Inputs
    classes: Tensor
    ids: np.ndarray
    targets: Sequence[Any] | None = None

    def __getitem__(self, chosen: Tensor) -> Rows:
        """Return some of the rows, by their indices."""
        there, here = chosen.to(self.inputs.device), chosen.cpu().numpy()
        targets = None if self.targets is None else [self.targets[row] for row in here.tolist()]
        return Rows(self.inputs[there], self.classes[there], self.ids[here], targets)


class Head(ABC):
    """Returns log p of the label under sub-models.

    Args:
        views: the sub-models.
        path_weights: (K,) ω_k, on the model's device.
    """

    def __init__(self, views: Views, path_weights: Tensor) -> None:
        self.views = views
        self.path_weights = path_weights

    @abstractmethod
    def class_index(self, labels: Tensor) -> Tensor:
        """Map labels (N,) on the host to classes of the head, −1 where there is none."""

    @abstractmethod
    def reject_reason(self, label: int) -> str:
        """Return why a label has no class here, for the row's detail."""

    def reject_target(self, target: Any) -> str:
        """Return why a row cannot be compared with a target here; "" where it can."""
        return ""

    @abstractmethod
    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Return log p_k of the labels for sub-models k: (P, N), NaN for rows that have none."""

    def score(self, rows: Rows) -> PathScores:
        """Return the scores of rows over the whole path, with log_probs."""
        log_probs = self.log_probs(rows, range(len(self.path_weights)))
        return path_scores.finish(log_probs, self.path_weights, return_path=True)

    def scores_and_columns(self, rows: Rows) -> tuple[PathScores, dict[str, Tensor]]:
        """Return the scores of rows, and further columns (N,) of the score table."""
        return self.score(rows), {}


class ClassHead(Head):
    """A head that gives a probability to each of its classes."""

    @property
    @abstractmethod
    def class_labels(self) -> Tensor:
        """(C,) int64 the labels of its classes, ascending."""

    @abstractmethod
    def class_log_probs(self, rows: Rows, points: Sequence[int]) -> Iterator[Tensor]:
        """Yield log p of all classes (N, C) under each of the sub-models `points`.

        Args:
            rows: N rows; their classes are not read.
            points: sub-models; `WHOLE` is the model with all its weights.
        """


class SeenClassesHead(Head):
    """A head whose classes are the labels that were seen when it was fitted."""

    labels: Tensor

    def class_index(self, labels: Tensor) -> Tensor:
        """Map labels to their indices among the labels seen."""
        index = torch.searchsorted(self.labels, labels).clamp_max(len(self.labels) - 1)
        return torch.where(self.labels[index] == labels, index, -1)
