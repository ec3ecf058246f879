"""Heads for labels that are no class: votes over classes, and no labels at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lc_engine.backbone.masked_weights import WHOLE
from lc_engine.heads.base import Head
from lc_engine.ops import PathScores, path_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.heads.base import ClassHead, Rows

# Share of the votes that a class without a place in the head may have, for rounding.
_LOST = 1e-6
AGREEMENT = "agreement"


class SoftLabels(Head):
    """Expected log-likelihood under the distribution that a row has over the classes.

        log p_k = Σ_c q_c log p_k(c | x),  Σ_c q_c = 1

    Args:
        head: gives a probability to each class.
    """

    def __init__(self, head: ClassHead) -> None:
        super().__init__(head.views, head.path_weights)
        self._head = head

    def class_index(self, labels: Tensor) -> Tensor:
        """Return zeros: rows are compared with their distributions."""
        return torch.zeros_like(labels)

    def reject_reason(self, label: int) -> str:
        """Never called: no label is refused."""
        raise NotImplementedError

    def reject_target(self, target: Any) -> str:
        """Return why a distribution (C,) does not fit the classes."""
        labels, votes = self._head.class_labels, len(target)
        if int(labels[-1]) >= votes:
            return f"there are {votes} votes, but the head has classes up to {int(labels[-1])}"
        lost = float(target.sum() - target[labels].sum())
        if lost > _LOST:
            return f"{lost:.1%} of the votes are for classes that the head does not have"
        return ""

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Return the expected log p (P, N)."""
        assert rows.targets is not None
        labels = self._head.class_labels
        shares = torch.stack([target[labels] for target in rows.targets])
        found = []
        for log_p in self._head.class_log_probs(rows, points):
            q = shares.to(log_p)
            # 0 · ∞ must not appear where a class has no votes.
            found.append(torch.where(q == 0, 0.0, q * log_p).sum(1))
        return torch.stack(found)


class WithoutLabels(Head):
    """The largest probability that each sub-model gives to any class.

    `agreement` is Σ ω_k [the most probable class of sub-model k is that of the whole model].

    Args:
        head: gives a probability to each class.
        whole: the point of the path that is the whole model; None if there is none.
    """

    def __init__(self, head: ClassHead, whole: int | None) -> None:
        super().__init__(head.views, head.path_weights)
        self._head, self._whole = head, whole

    def class_index(self, labels: Tensor) -> Tensor:
        """Return zeros: labels are not read."""
        return torch.zeros_like(labels)

    def reject_reason(self, label: int) -> str:
        """Never called: no label is refused."""
        raise NotImplementedError

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Return the largest log p (P, N)."""
        return torch.stack([log_p.amax(1) for log_p in self._head.class_log_probs(rows, points)])

    def scores_and_columns(self, rows: Rows) -> tuple[PathScores, dict[str, Tensor]]:
        """Return the scores and the agreement of the sub-models with the whole model."""
        path = list(range(len(self.path_weights)))
        asked = path if self._whole is not None else [*path, WHOLE]
        found = [log_p.max(1) for log_p in self._head.class_log_probs(rows, asked)]
        scores = path_scores.finish(
            torch.stack([one.values for one in found[: len(path)]]), self.path_weights, True
        )
        wanted = found[-1 if self._whole is None else self._whole].indices
        same = torch.stack([one.indices == wanted for one in found[: len(path)]])
        agreement = (self.path_weights.double()[:, None] * same).sum(0)
        agreement.masked_fill_(~scores.lc.isfinite(), torch.nan)
        return scores, {AGREEMENT: agreement.float()}
