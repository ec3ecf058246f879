"""Ties at a threshold: which of the weights that tie each of K nested sub-models keeps.

A threshold keeps all weights that tie with it, or none. The order here is total: by saliency, then
zeros last, then by the Philox number of the weight's index, so that no row or column is preferred.
Two forms keep exactly as many weights as were asked for. Where few tie, s ≥ t_k and a list of the
weights that sub-model k drops all the same. Else levels, the number of sub-models that a weight
lives in: sub-model k keeps level ≥ k + 1.
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
# Weights kept beyond the count, as a share of all, that are let pass.
TOLERANCE: Final = 1e-3
# Entries of lists per weight above which levels are used, which take 4 bytes a weight where an
# entry takes 8: lists are then as cheap as it gets, and levels a second tensor to read.
LISTED: Final = 1 / 32
# Scores that a device sorts at a time, which takes about five times their memory there. Chosen.
SORTED: Final = 1 << 28


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


def device_quantiles(scores: Sequence[Tensor], counts: Sequence[int]) -> Quantiles:
    """Return what `quantiles` does, from one sort where the scores are.

    Args:
        scores: tensors of one dtype on one device, without NaN.
        counts: (K,) weights to keep, descending.
    """
    ordered = torch.cat([score.reshape(-1) for score in scores]).sort().values
    size = len(ordered)
    # One more, +inf, for a count of 0.
    padded = torch.cat([ordered, ordered.new_full((1,), torch.inf)])
    bounds = padded[torch.tensor([size - n for n in counts], device=padded.device)]
    kept = size - torch.searchsorted(ordered, bounds)
    host = torch.stack([bounds.double(), kept.double()]).cpu().numpy()
    return Quantiles(host[0], host[1].astype(np.int64), size)


class Tied(NamedTuple):
    """The weights of a tensor whose saliency is a threshold that keeps too many.

    Attributes:
        where: (n,) int64 row-major indices.
        kept: (n,) int32 in how many sub-models each lives.
        reached: (n,) int32 how many of the thresholds its saliency reaches.
    """

    where: np.ndarray
    kept: np.ndarray
    reached: np.ndarray

    @property
    def entries(self) -> int:
        """How many entries the lists of `dropped` have over all sub-models."""
        return int((self.reached - self.kept).sum())

    def dropped(self, k: int) -> Tensor:
        """Return the indices, ascending int64, that sub-model k drops though they reach t_k."""
        lost = self.where[(self.kept <= k) & (k < self.reached)]
        return torch.from_numpy(np.sort(lost))


def break_ties(
    scores: Sequence[np.ndarray],
    weights: Sequence[Tensor],
    streams: Sequence[int],
    found: Quantiles,
    counts: Sequence[int],
) -> list[Tied]:
    """Return the ties of tensors that share their thresholds, broken.

    Args:
        scores: T flat saliencies on the host.
        weights: T weights of the same sizes.
        streams: T numbers of the tensors in the model.
        found: `quantiles` of all scores together.
        counts: (K,) weights to keep, descending.
    """
    parts: list[list[Tied]] = [[] for _ in scores]
    wanted = np.array(counts, dtype=np.int64)
    for bound in np.unique(found.bounds[found.kept > wanted]):
        same = np.flatnonzero(found.bounds == bound)
        ties = [np.flatnonzero(score == score.dtype.type(bound)) for score in scores]
        sizes = [len(at) for at in ties]
        rooms = wanted[same] - (found.kept[same[0]] - sum(sizes))
        kept = np.int32(same[0]) + _places(_keys(weights, streams, ties), rooms)
        for part, at, own in zip(parts, ties, np.split(kept, np.cumsum(sizes)[:-1]), strict=True):
            part.append(Tied(at, own, np.full(len(at), same[0] + len(same), dtype=np.int32)))
    return [_joined(part) for part in parts]


def levels(
    scores: Sequence[np.ndarray],
    weights: Sequence[Tensor],
    tied: Sequence[Tied],
    bounds: np.ndarray,
) -> list[Tensor]:
    """Return the level of each weight of tensors that share their thresholds.

    Args:
        scores: T flat saliencies on the host.
        weights: T weights of the same sizes.
        tied: T results of `break_ties`.
        bounds: (K,) of `quantiles` of all scores together.

    Returns:
        T float32 tensors like the weights, on their devices. Level ≥ k + 1 holds for exactly as
        many weights as sub-model k is to keep.
    """
    found = []
    for score, weight, ties in zip(scores, weights, tied, strict=True):
        values = torch.from_numpy(score)
        level = torch.bucketize(
            values, torch.from_numpy(bounds).to(values.dtype), right=True, out_int32=True
        )
        level[torch.from_numpy(ties.where)] = torch.from_numpy(ties.kept)
        found.append(level.to(torch.float32).reshape(weight.shape).to(weight.device))
    return found


def _joined(parts: Sequence[Tied]) -> Tied:
    if len(parts) == 1:
        return parts[0]
    kinds = (np.int64, np.int32, np.int32)
    columns = zip(*parts, strict=True) if parts else ((), (), ())
    return Tied(
        *(
            np.concatenate([np.empty(0, kind), *one])
            for kind, one in zip(kinds, columns, strict=True)
        )
    )


def _keys(
    weights: Sequence[Tensor], streams: Sequence[int], tied: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the int32 keys of tied weights, of one tensor after the other: large ones stay."""
    keys = []
    for weight, stream, at in zip(weights, streams, tied, strict=True):
        drawn = philox.at(at.astype(np.uint64), _SEED, stream)
        alive = weight.detach().reshape(-1)[torch.from_numpy(at).to(weight.device)] != 0
        # 24 bits of a number, above them whether the weight is not zero: exact.
        keys.append((drawn * 2.0**24).astype(np.int32) + alive.cpu().numpy() * np.int32(1 << 24))
    return np.concatenate(keys)


def _places(keys: np.ndarray, rooms: np.ndarray) -> np.ndarray:
    """Return in how many of the rooms each key has a place.

    A room of size n has the n largest keys, of equal ones the first.

    Args:
        keys: (N,) integers.
        rooms: sizes, 0 to N.
    """
    ranks = sorted({len(keys) - n for n in rooms if n > 0})
    ordered = np.partition(keys, ranks) if ranks else keys
    places = np.zeros(len(keys), dtype=np.int32)
    for room in rooms[rooms > 0]:
        smallest = ordered[len(keys) - room]
        larger = keys > smallest
        places += larger
        places[np.flatnonzero(keys == smallest)[: room - np.count_nonzero(larger)]] += 1
    return places
