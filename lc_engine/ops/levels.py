"""The level of a weight: in how many nested sub-models it lives, exact where saliencies tie.

A threshold keeps all weights that tie with it, or none. The order here is total: by saliency, then
zeros last, then by the Philox number of the weight's index, so that no row or column is preferred.
A weight of level l lives in the sub-models 0 … l − 1, so sub-model k keeps level ≥ k + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from lc_engine.ops import philox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Name of the order, for the description of masks: another order gets another one.
TIE_RULE: Final = "zeros last, then Philox of the index"
# Key of the numbers that order ties: the same for every masking, whatever its seed.
_SEED: Final = 0x71E5
# Weights kept beyond the count, as a share of all, that are let pass: levels take 4 bytes a weight,
# and large tensors of bfloat16 always have a few ties.
TOLERANCE: Final = 1e-3


class Quantiles(NamedTuple):
    """The thresholds of K counts over N scores.

    Attributes:
        bounds: (K,) float64, for a count n the n-th largest score, +inf for none.
        kept: (K,) int64, how many scores are ≥ the threshold: the count, and what ties with it.
        size: N.
    """

    bounds: np.ndarray
    kept: np.ndarray
    size: int

    def exceeds(self, counts: Sequence[int]) -> bool:
        """Return whether ties keep more than the counts and `TOLERANCE` of all."""
        return bool((self.kept - np.array(counts)).max(initial=0) > TOLERANCE * self.size)


def quantiles(scores: np.ndarray, counts: Sequence[int]) -> Quantiles:
    """Return the thresholds of counts, and how many scores they keep.

    Args:
        scores: (N,) saliencies.
        counts: (K,) weights to keep, descending.
    """
    ranks = sorted({scores.size - n for n in counts if n > 0})
    ordered = np.partition(scores, ranks) if ranks else scores
    bounds = np.array(
        [float(ordered[scores.size - n]) if n > 0 else np.inf for n in counts], dtype=np.float64
    )
    surplus = 0
    more = {scores.size: int(np.count_nonzero(np.isposinf(scores))) if 0 in counts else 0}
    # What lies between two ranks is no larger than the upper one.
    for below, rank in zip([0, *ranks], ranks, strict=False):
        equal = int(np.count_nonzero(ordered[below:rank] == ordered[rank]))
        surplus = equal + (surplus if equal == rank - below else 0)
        more[rank] = surplus
    kept = np.array([n + more[scores.size - n] for n in counts], dtype=np.int64)
    return Quantiles(bounds, kept, scores.size)


def levels(
    scores: Sequence[np.ndarray],
    weights: Sequence[Tensor],
    streams: Sequence[int],
    bounds: np.ndarray,
    counts: Sequence[int],
) -> list[Tensor]:
    """Return the level of each weight of tensors that share their thresholds.

    Args:
        scores: T flat saliencies on the host.
        weights: T weights of the same sizes.
        streams: T numbers of the tensors in the model.
        bounds: (K,) of `quantiles` of all scores together.
        counts: (K,) weights to keep, descending.

    Returns:
        T float32 tensors like the weights, on their devices. Level ≥ k + 1 holds for exactly
        counts[k] weights.
    """
    kept = sum(n > 0 for n in counts)
    if kept == 0:
        return [torch.zeros(w.shape, dtype=torch.float32, device=w.device) for w in weights]
    finest = torch.from_numpy(bounds[:kept])
    below, tied = [], []
    histogram = np.zeros(kept + 1, dtype=np.int64)
    for score in map(torch.from_numpy, scores):
        edges = finest.to(score.dtype)
        # The number of thresholds that are smaller than the score.
        level = torch.bucketize(score, edges, out_int32=True)
        histogram += torch.bincount(level, minlength=kept + 1).numpy()
        tied.append(torch.nonzero(score == edges[level.clamp(max=kept - 1)])[:, 0])
        below.append(level)
    group = np.concatenate([level[at].numpy() for level, at in zip(below, tied, strict=True)])
    extra = _kept_of_tied(
        group, _kept_first(group, weights, streams, tied), histogram, bounds[:kept], counts
    )
    found, start = [], 0
    for weight, level, at in zip(weights, below, tied, strict=True):
        level[at] += torch.from_numpy(extra[start : start + len(at)])
        start += len(at)
        found.append(level.to(torch.float32).reshape(weight.shape).to(weight.device))
    return found


def _kept_first(
    group: np.ndarray, weights: Sequence[Tensor], streams: Sequence[int], tied: Sequence[Tensor]
) -> np.ndarray:
    """Return the indices that sort tied weights by group and, inside it, the kept ones first."""
    zero = [
        (weight.detach().reshape(-1)[at.to(weight.device)] == 0).cpu().numpy()
        for weight, at in zip(weights, tied, strict=True)
    ]
    drawn = [
        philox.at(at.numpy().astype(np.uint64), _SEED, stream)
        for stream, at in zip(streams, tied, strict=True)
    ]
    return np.lexsort((-np.concatenate(drawn), np.concatenate(zero), group))


def _kept_of_tied(
    group: np.ndarray,
    order: np.ndarray,
    histogram: np.ndarray,
    bounds: np.ndarray,
    counts: Sequence[int],
) -> np.ndarray:
    """Return, per tied weight, how many of the sub-models whose threshold it equals keep it."""
    extra = np.zeros(len(group), dtype=np.int32)
    larger = histogram.sum() - np.cumsum(histogram)
    grouped = group[order]
    for first in np.unique(group):
        begin, end = np.searchsorted(grouped, [first, first + 1])
        same = np.flatnonzero(bounds == bounds[first])
        rooms = np.array(counts)[same] - larger[first]
        rank = np.arange(end - begin)
        smaller = np.searchsorted(rooms[::-1], rank, side="right")
        extra[order[begin:end]] = len(same) - smaller
    return extra
