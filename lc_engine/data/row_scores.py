"""Scores of the rows of a batch that could be scored, scattered to all its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lc_engine.path.reduction import path_std

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from lc_engine.ops import PathScores
    from lc_engine.path.learning_path import LearningPath


@dataclass(frozen=True)
class Scored:
    """Scores of the rows that could be scored, on the host: columns (3, N), log p (K, N)."""

    columns: Tensor
    log_probs: Tensor
    extra: Mapping[str, Tensor]

    def without(self, lost: Tensor) -> Scored:
        """Return the same with NaN for the rows that a mask (N,) marks."""
        columns, log_probs = (
            part.masked_fill(lost, torch.nan) for part in (self.columns, self.log_probs)
        )
        return Scored(columns, log_probs, self.extra)


def columns(scores: PathScores, path: LearningPath) -> tuple[Tensor, Tensor]:
    """Return scores on the host: (3, N) of lc, loss, lc_std, and log p (K, N)."""
    lc, loss, log_probs = scores.lc, scores.loss, scores.log_probs
    assert log_probs is not None
    lc_std = torch.from_numpy(path_std(log_probs.numpy(), path.weights))
    return torch.stack([lc, loss, lc_std.to(lc.dtype)]), log_probs


def scatter(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return (…, count) rows with values (…, M) at `rows`; NaN elsewhere, 0 for integers."""
    if len(rows) == count:
        return values
    missing = torch.nan if values.is_floating_point() else 0
    whole = values.new_full((*values.shape[:-1], count), missing)
    whole[..., rows] = values
    return whole
