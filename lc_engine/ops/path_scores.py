"""Scores over a learning path: the result type and the reduction of log p to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from lc_engine.ops import arrays, contract
from lc_engine.path.reduction import reduce_path

if TYPE_CHECKING:
    from torch import Tensor


class PathScores(NamedTuple):
    """Scores of N samples over the K sub-models of a learning path.

    Attributes:
        lc: (N,) learning complexity Σ ω_k p_k, the mean confidence in the label. High = easy.
        loss: (N,) Σ ω_k (−log p_k), in nats. High = hard.
        log_probs: (K, N) log p_k, sub-model 0 the densest, or None if it was not asked for.
    """

    lc: Tensor
    loss: Tensor
    log_probs: Tensor | None


def finish(log_probs: Tensor, path_weights: Tensor, return_path: bool) -> PathScores:
    """Reduce log p (K, N) over the path; sums run in float64, as in every backend."""
    omega = path_weights.to(torch.float64).unsqueeze(1)
    logs = log_probs.to(torch.float64)
    # 0 · ∞ must not appear where a sub-model has no weight in the sum.
    loss = torch.where(omega == 0, 0.0, omega * -logs).sum(0)
    lc = (omega * logs.exp()).sum(0)
    dtype = log_probs.dtype
    return PathScores(lc.to(dtype), loss.to(dtype), log_probs if return_path else None)


def label_log_prob(logits: Tensor, labels: Tensor | None) -> Tensor:
    """Take log softmax at the label, or the largest where there is none: (N, C) -> (N,)."""
    log_probs = torch.log_softmax(logits, dim=-1)
    if labels is None:
        return log_probs.amax(-1)
    return log_probs.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)


def run_native(
    plan: Any,
    features: Tensor,
    labels: Tensor | None,
    path_weights: Tensor,
    return_path: bool,
) -> PathScores:
    """Run a prepared native plan on host tensors."""
    log_probs = np.empty((len(path_weights), features.shape[-2]), dtype=np.float32)
    plan.run(
        arrays.host_array(features),
        None if labels is None else labels.to(torch.int64).contiguous().numpy(),
        log_probs,
        torch.get_num_threads(),
    )
    return reduced(log_probs, path_weights, return_path)


def reduced(log_probs: np.ndarray[Any, Any], path_weights: Tensor, return_path: bool) -> PathScores:
    """Reduce float32 log p (K, N) on the host over the path.

    The sums are NumPy's: torch's threads would spin beside those of the core.
    """
    sums = reduce_path(log_probs, path_weights.tolist())
    return PathScores(
        torch.from_numpy(sums.lc.astype(np.float32)),
        torch.from_numpy(sums.loss.astype(np.float32)),
        torch.from_numpy(log_probs) if return_path else None,
    )


def as_op_result(scores: PathScores) -> tuple[Tensor, Tensor, Tensor]:
    """Return a custom op's result: log p that was not asked for is an empty tensor, not None."""
    log_probs = scores.log_probs
    return scores.lc, scores.loss, scores.lc.new_empty((0, 0)) if log_probs is None else log_probs


def fake_op_result(
    features: Tensor, samples: int, sub_models: int, return_path: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shapes and dtype of `as_op_result`, for `torch.compile`."""
    dtype = contract.compute_dtype(features.dtype)
    path = (sub_models, samples) if return_path else (0, 0)
    return (
        features.new_empty((samples,), dtype=dtype),
        features.new_empty((samples,), dtype=dtype),
        features.new_empty(path, dtype=dtype),
    )
