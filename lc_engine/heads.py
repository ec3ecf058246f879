"""Heads: from what a model gives to the probability of the label, for all sub-models of a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine.ops import LinearPlan, PathScores, PrototypePlan, contract
from lc_engine.submodels import evaluating

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.classifier import Tap
    from lc_engine.ops.prototype_confidence import Logit
    from lc_engine.prototypes import Prototypes
    from lc_engine.submodels import Submodels


class PrototypeHead:
    """Softmax over the distances between a sub-model's features and the class prototypes.

    Args:
        tap: the model.
        submodels: its sub-models.
        prototypes: the class means.
        logit: "inverse_distance", "neg_sq_distance" or "cosine"; see `ops.prototype_confidence`.
        temperature: divides the logit.
    """

    def __init__(
        self,
        tap: Tap,
        submodels: Submodels,
        prototypes: Prototypes,
        logit: Logit,
        temperature: float,
    ) -> None:
        self._tap = tap
        self._submodels = submodels
        self._labels = prototypes.labels
        self._plan = PrototypePlan(
            prototypes.means.to(_device(submodels)),
            logit=logit,
            temperature=temperature,
            path_weights=_path_weights(submodels),
        )

    def class_index(self, labels: Tensor) -> Tensor:
        """Map labels (N,) on the host to classes of the head, −1 where it has none."""
        index = torch.searchsorted(self._labels, labels).clamp_max(len(self._labels) - 1)
        return torch.where(self._labels[index] == labels, index, -1)

    def complaint(self, label: int) -> str:
        """Say why a label has no class here."""
        return f"class {label} has no prototype: no row of it was seen when they were fitted"

    def score(self, inputs: Tensor, classes: Tensor) -> PathScores:
        """Score a batch.

        Args:
            inputs: (N, …) on the model's device.
            classes: (N,) what `class_index` gave, on the same device.

        Returns:
            PathScores with log_probs; NaN for a row whose features are not finite.
        """
        prototypes = self._plan.prototypes
        with self._submodels as submodels:
            features: Tensor | None = None
            for k in range(len(submodels.path)):
                submodels.at(k)
                values = self._tap.features(inputs)
                _check_width(values, prototypes.shape[1])
                if features is None:
                    shape = (len(submodels.path), *values.shape)
                    features = values.new_empty(shape, dtype=prototypes.dtype)
                features[k] = values
        assert features is not None  # a path has at least one capacity
        scores = self._plan(features, classes, return_path=True)
        return _marked(scores, features.isfinite().all(2).all(0))


class LinearHead:
    """The model's own linear classifier, behind masked layers: one forward per sub-model."""

    def __init__(self, tap: Tap, submodels: Submodels) -> None:
        self._tap = tap
        self._submodels = submodels
        self._classes = tap.linear.out_features
        self._path_weights = _path_weights(submodels)

    def class_index(self, labels: Tensor) -> Tensor:
        """Map labels (N,) to classes of the head, −1 where it has none."""
        return torch.where((labels >= 0) & (labels < self._classes), labels, -1)

    def complaint(self, label: int) -> str:
        """Say why a label has no class here."""
        return f"the label is {label}, but the head has {self._classes} classes"

    def score(self, inputs: Tensor, classes: Tensor) -> PathScores:
        """Score a batch; see `PrototypeHead.score`."""
        rows = []
        with self._submodels as submodels:
            for k in range(len(submodels.path)):
                submodels.at(k)
                logits = self._tap.logits(inputs)
                precise = logits.to(contract.compute_dtype(logits.dtype))
                rows.append(contract.label_log_prob(precise, classes))
        return contract.finish(torch.stack(rows), self._path_weights, return_path=True)


class MaskedLinearHead(LinearHead):
    """The model's own linear classifier where only it is masked: one forward for all sub-models.

    The features are the same at every capacity, so `ops.LinearPlan` scores the whole path at once.
    """

    def __init__(self, tap: Tap, submodels: Submodels) -> None:
        super().__init__(tap, submodels)
        module = tap.linear
        saliency = submodels.masking.operator_saliency(submodels.weights)
        self._plan = LinearPlan(
            module.weight,
            module.bias,
            submodels.thresholds[:, 0],
            path_weights=self._path_weights,
            saliency=saliency[0] if isinstance(saliency, list) else saliency,
        )

    def score(self, inputs: Tensor, classes: Tensor) -> PathScores:
        """Score a batch; see `PrototypeHead.score`."""
        with evaluating(self._tap.model):
            features = self._tap.features(inputs)
        scores = self._plan(features, classes, return_path=True)
        return _marked(scores, features.isfinite().all(1))


def linear_head(tap: Tap, submodels: Submodels) -> LinearHead:
    """Choose the head for a model's own linear classifier by what is masked.

    Raises:
        ValueError: the model's classifier is not a Linear module.
    """
    weight = tap.linear.weight
    if [id(masked) for masked in submodels.weights.values()] == [id(weight)]:
        return MaskedLinearHead(tap, submodels)
    return LinearHead(tap, submodels)


def _check_width(features: Tensor, width: int) -> None:
    if features.shape[1] != width:
        raise ValueError(
            f"the model gives features of width {features.shape[1]}, but the prototypes have "
            f"{width}: they were fitted with another model or input size"
        )


def _marked(scores: PathScores, finite: Tensor) -> PathScores:
    """Put NaN where the features are not finite; comparisons in a kernel may lose it."""
    assert scores.log_probs is not None
    parts = (scores.lc, scores.loss, scores.log_probs)
    return PathScores(*(part.masked_fill(~finite, torch.nan) for part in parts))


def _path_weights(submodels: Submodels) -> Tensor:
    weights = torch.tensor(submodels.path.weights, dtype=torch.float64)
    return weights.to(_device(submodels))


def _device(submodels: Submodels) -> torch.device:
    return next(iter(submodels.weights.values())).device
