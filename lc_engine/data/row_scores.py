"""The scores of those rows of a batch that have some, and their way back among all its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from lc_engine.ops import PathScores
    from lc_engine.path.learning_path import LearningPath


@dataclass(frozen=True)
class Scored:
    """Scores of the rows that could be scored, on the host: columns (3, N), log p (K, N)."""

    columns: Tensor
    log_probs: Tensor
    extra: Mapping[str, Tensor]


def columns(scores: PathScores, path: LearningPath) -> tuple[Tensor, Tensor]:
    """Bring scores to the host: (3, N) of lc, loss, lc_std, and log p (K, N)."""
    assert scores.log_probs is not None
    log_probs = scores.log_probs.cpu()
    lc = scores.lc.cpu()
    deviation = torch.from_numpy(_deviation(log_probs.numpy(), path.weights))
    return torch.stack([lc, scores.loss.cpu(), deviation.to(lc.dtype)]), log_probs


def _deviation(log_probs: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Give the spread of p over the path: (K, N) -> (N,) float64.

    A sub-model at a time, so that it stays in the cache and a row's sums do not depend on how many
    rows there are. By NumPy, as in `contract.run_native`: torch's threads would spin on beside the
    core's own.
    """
    mean, square = np.zeros((2, log_probs.shape[1]))
    for omega, logs in zip(weights, log_probs, strict=True):
        p = np.exp(logs)
        share = np.multiply(p, omega, dtype=np.float64)
        mean += share
        square += np.multiply(share, p, out=share)
    return np.sqrt(np.maximum(square - mean * mean, 0.0))


def spread(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Put values (…, M) of `rows` among (…, count) rows; the others get NaN, or 0 for integers."""
    if len(rows) == count:
        return values
    nothing = torch.nan if values.is_floating_point() else 0
    whole = values.new_full((*values.shape[:-1], count), nothing)
    whole[..., rows] = values
    return whole
