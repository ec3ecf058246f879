"""Heads: from what a model gives to the probability of the label, for the sub-models of a path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lc_engine.heads.knn import knn_log_prob
from lc_engine.ops import LinearPlan, PathScores, PrototypePlan, contract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from lc_engine.backbone.interface import Views
    from lc_engine.heads.memory_bank import Bank
    from lc_engine.heads.prototype import Prototypes
    from lc_engine.ops.prototype_confidence import Logit
    from lc_engine.submodels import HeadMask


@dataclass(frozen=True)
class Rows:
    """Rows of a batch that can be scored.

    Attributes:
        inputs: (N, …) on the model's device.
        classes: (N,) what `Head.class_index` gave, on the same device.
        ids: (N,) names of the rows.
    """

    inputs: Tensor
    classes: Tensor
    ids: np.ndarray

    def __getitem__(self, chosen: Tensor) -> Rows:
        """Take some of the rows, by their numbers."""
        there = chosen.to(self.inputs.device)
        return Rows(self.inputs[there], self.classes[there], self.ids[chosen.cpu().numpy()])


class Head(ABC):
    """What gives log p of the label under sub-models.

    Args:
        views: the sub-models.
        path_weights: (K,) ω_k, on the model's device.
    """

    def __init__(self, views: Views, path_weights: Tensor) -> None:
        self.views = views
        self.path_weights = path_weights

    @abstractmethod
    def class_index(self, labels: Tensor) -> Tensor:
        """Map labels (N,) on the host to classes of the head, −1 where it has none."""

    @abstractmethod
    def complaint(self, label: int) -> str:
        """Say why a label has no class here."""

    @abstractmethod
    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Give log p_k of the labels for sub-models k: (P, N), NaN for rows that have none."""

    def score(self, rows: Rows) -> PathScores:
        """Score rows over the whole path; with log_probs."""
        log_probs = self.log_probs(rows, range(len(self.path_weights)))
        return contract.finish(log_probs, self.path_weights, return_path=True)


class _ClassesOfData(Head):
    """A head whose classes are those that were seen when it was fitted."""

    labels: Tensor

    def class_index(self, labels: Tensor) -> Tensor:
        """Map labels to places among the labels seen."""
        index = torch.searchsorted(self.labels, labels).clamp_max(len(self.labels) - 1)
        return torch.where(self.labels[index] == labels, index, -1)


class PrototypeHead(_ClassesOfData):
    """Softmax over the distances between a sub-model's features and the class prototypes.

    Args:
        views: the sub-models.
        path_weights: (K,) ω_k.
        prototypes: the class means.
        logit: "inverse_distance", "neg_sq_distance" or "cosine"; see `ops.prototype_confidence`.
        temperature: divides the logit.
    """

    def __init__(
        self,
        views: Views,
        path_weights: Tensor,
        prototypes: Prototypes,
        logit: Logit,
        temperature: float,
    ) -> None:
        super().__init__(views, path_weights)
        self.labels = prototypes.labels
        self._plans = [
            PrototypePlan(means.to(path_weights.device), logit=logit, temperature=temperature)
            for means in torch.split(
                prototypes.means, list(prototypes.widths) or prototypes.means.shape[1], 1
            )
        ]

    def complaint(self, label: int) -> str:
        """Say why a label has no class here."""
        return f"class {label} has no prototype: no row of it was seen when they were fitted"

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Give log p (P, N); one launch for all points whose prototypes are the same."""
        features = self.views.features(rows.inputs, points)
        if len(self._plans) == 1:
            stacked = features if isinstance(features, Tensor) else torch.stack(list(features))
            return self._one(self._plans[0], stacked, rows.classes)
        parts = [
            self._one(self._plans[k], values.unsqueeze(0), rows.classes)
            for k, values in zip(points, features, strict=True)
        ]
        return torch.cat(parts)

    def _one(self, plan: PrototypePlan, features: Tensor, classes: Tensor) -> Tensor:
        width = plan.prototypes.shape[1]
        if features.shape[2] != width:
            raise ValueError(
                f"the model gives features of width {features.shape[2]}, but the prototypes have "
                f"{width}: they were fitted with another model or input size"
            )
        features = features.to(plan.prototypes.dtype)
        log_probs = plan(features, classes, return_path=True).log_probs
        assert log_probs is not None
        # Comparisons in a kernel may lose a NaN.
        return log_probs.masked_fill(~features.isfinite().all(2), torch.nan)


class KNNHead(_ClassesOfData):
    """Nearest neighbours among rows of the data; see `knn_log_prob`.

    Args:
        views: the sub-models.
        path_weights: (K,) ω_k.
        bank: rows of the data under all sub-models.
        neighbours: how many count.
    """

    def __init__(self, views: Views, path_weights: Tensor, bank: Bank, neighbours: int) -> None:
        super().__init__(views, path_weights)
        self.labels = bank.classes
        self._bank = bank
        self._neighbours = neighbours
        self._features = [values.to(path_weights.device) for values in bank.features]
        self._classes = self.class_index(bank.labels).to(path_weights.device)

    def complaint(self, label: int) -> str:
        """Say why a label has no class here."""
        return f"class {label} has no row among those that neighbours are looked for in"

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Give log p (P, N)."""
        own = self._bank.place_of(rows.ids).to(rows.classes.device)
        found = []
        for k, values in zip(points, self.views.features(rows.inputs, points), strict=True):
            log_prob = knn_log_prob(
                values, rows.classes, own, self._features[k], self._classes, self._neighbours
            )
            found.append(log_prob.masked_fill(~values.isfinite().all(1), torch.nan))
        return torch.stack(found)


class LinearHead(Head):
    """The model's own linear classifier, behind masked layers: one forward per sub-model.

    Args:
        views: the sub-models.
        path_weights: (K,) ω_k.
        module: the classifier.
    """

    def __init__(self, views: Views, path_weights: Tensor, module: nn.Linear) -> None:
        super().__init__(views, path_weights)
        self._classes = module.out_features

    def class_index(self, labels: Tensor) -> Tensor:
        """Map labels (N,) to classes of the head, −1 where it has none."""
        return torch.where((labels >= 0) & (labels < self._classes), labels, -1)

    def complaint(self, label: int) -> str:
        """Say why a label has no class here."""
        return f"the label is {label}, but the head has {self._classes} classes"

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Give log p (P, N)."""
        logits = self.views.logits(rows.inputs, points)
        precise = (values.to(contract.compute_dtype(values.dtype)) for values in logits)
        return torch.stack([contract.label_log_prob(values, rows.classes) for values in precise])


class MaskedLinearHead(LinearHead):
    """The model's own linear classifier where only it is masked: one forward for all sub-models.

    The features are the same at every capacity, so `ops.LinearPlan` scores the whole path at once.

    Args:
        views: the model.
        path_weights: (K,) ω_k.
        module: the classifier.
        mask: of its weight.
        dtype: that features and weight are multiplied in. The masks are those of the weight as
            it is.
    """

    def __init__(
        self,
        views: Views,
        path_weights: Tensor,
        module: nn.Linear,
        mask: HeadMask,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(views, path_weights, module)
        scores = mask.saliency
        if scores is None and dtype != module.weight.dtype:
            scores = module.weight.detach().abs()
        self._plan = LinearPlan(
            module.weight.to(dtype),
            module.bias,
            mask.thresholds,
            path_weights=path_weights,
            saliency=scores,
        )

    def score(self, rows: Rows) -> PathScores:
        """Score rows over the whole path; with log_probs."""
        features = self.views.whole(rows.inputs)
        scores = self._plan(features.to(self._plan.weight.dtype), rows.classes, return_path=True)
        assert scores.log_probs is not None
        # Comparisons in a kernel may lose a NaN.
        lost = ~_finite_rows(features)
        if not lost.any():
            return scores
        parts = (scores.lc, scores.loss, scores.log_probs)
        return PathScores(*(part.masked_fill(lost, torch.nan) for part in parts))

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Give log p (P, N); all of the path is computed in any case."""
        log_probs = self.score(rows).log_probs
        assert log_probs is not None
        return log_probs[list(points)]


def _finite_rows(features: Tensor) -> Tensor:
    """Tell which rows of (N, D) are finite: (N,)."""
    if features.device.type != "cpu" or features.dtype == torch.bfloat16:
        return features.isfinite().all(1)
    # NaN and infinity survive a sum, which writes nothing; NumPy's, for torch's threads would spin
    # on beside the core's own.
    values = features.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return torch.ones(len(values), dtype=torch.bool)
    return torch.from_numpy(np.isfinite(values).all(1))
