"""The linear head: the model's own classifier, masked or behind masked layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from lc_engine.backbone.masked_weights import WHOLE
from lc_engine.heads.base import ClassHead
from lc_engine.ops import LinearPlan, PathScores, contract, path_scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from lc_engine.backbone.interface import Views
    from lc_engine.heads.base import Rows
    from lc_engine.submodels import HeadMask


class LinearHead(ClassHead):
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

    def reject_reason(self, label: int) -> str:
        """Return why a label has no class here."""
        return f"the label is {label}, but the head has {self._classes} classes"

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Return log p (P, N)."""
        logits = self.views.logits(rows.inputs, points)
        precise = (values.to(contract.compute_dtype(values.dtype)) for values in logits)
        return torch.stack([path_scores.label_log_prob(values, rows.classes) for values in precise])

    @property
    def class_labels(self) -> Tensor:
        """(C,) the labels of its classes."""
        return torch.arange(self._classes)

    def class_log_probs(self, rows: Rows, points: Sequence[int]) -> Iterator[Tensor]:
        """Yield log p of all classes (N, C) under sub-models."""
        for values in self.views.logits(rows.inputs, points):
            yield values.to(contract.compute_dtype(values.dtype)).log_softmax(1)


class MaskedLinearHead(LinearHead):
    """The model's own linear classifier where it is all that is masked: one forward for the path.

    The features are the same at every capacity, so `ops.LinearPlan` scores the whole path at once.

    Args:
        views: the model.
        path_weights: (K,) ω_k.
        module: the classifier.
        mask: of its weight.
        dtype: that features and weight are multiplied in. The masks are those of the original
            weight.
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
        self._bias = module.bias
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
        """Return the scores of rows over the whole path, with log_probs."""
        features = self.views.whole(rows.inputs)
        # Rows without a class were taken out on the host.
        scores = self._plan(
            features.to(self._plan.weight.dtype), rows.classes, return_path=True, checked=True
        )
        assert scores.log_probs is not None
        # A kernel's comparisons may drop a NaN.
        lost = ~_finite_rows(features)
        if not lost.is_cuda and not lost.any():  # a device would have to be waited for
            return scores
        parts = (scores.lc, scores.loss, scores.log_probs)
        return PathScores(*(part.masked_fill(lost, torch.nan) for part in parts))

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Return log p (P, N); the whole path is computed in any case."""
        log_probs = self.score(rows).log_probs
        assert log_probs is not None
        return log_probs[list(points)]

    def class_log_probs(self, rows: Rows, points: Sequence[int]) -> Iterator[Tensor]:
        """Yield log p of all classes (N, C) under sub-models."""
        dtype = contract.compute_dtype(self._plan.weight.dtype)
        weight = self._plan.weight.to(dtype)
        bias = None if self._bias is None else self._bias.to(dtype)
        features = self.views.whole(rows.inputs).to(self._plan.weight.dtype).to(dtype)
        for k in points:
            masked = weight if k == WHOLE else self._plan.masked(weight, k)
            yield functional.linear(features, masked, bias).log_softmax(1)


def _finite_rows(features: Tensor) -> Tensor:
    """Return which rows of (N, D) are finite, as (N,) bools."""
    if features.device.type != "cpu" or features.dtype == torch.bfloat16:
        return features.isfinite().all(1)
    # NaN and infinity survive a sum, which writes nothing. In NumPy: torch's threads would spin
    # beside those of the C++ core.
    values = features.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return torch.ones(len(values), dtype=torch.bool)
    return torch.from_numpy(np.isfinite(values).all(1))
