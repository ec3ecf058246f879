"""The kNN head: the share of the label among a row's nearest neighbours, weighted by 1/distance.

p(y|z) = Σ_{neighbours with label y} d⁻¹ / Σ_{neighbours} d⁻¹ (arXiv 2402.05356 v1, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lc_engine.ops.prototype_confidence import MIN_DISTANCE

# No p is below this: a row none of whose neighbours has its label would have an infinite loss.
MIN_CONFIDENCE = 1e-6


def knn_log_prob(
    features: Tensor,
    labels: Tensor,
    places: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    neighbours: int,
) -> Tensor:
    """Compute log p of the label from the nearest rows of a bank.

    Args:
        features: (N, D).
        labels: (N,) integers.
        places: (N,) int64, where a row is in the bank, −1 if it is not: no row is its own
            neighbour.
        bank: (B, D) features of rows, B > 1.
        bank_labels: (B,).
        neighbours: how many count; all of the bank's if it holds fewer.

    Returns:
        (N,) float32, at least log `MIN_CONFIDENCE`.
    """
    # Directly: the product form of a distance loses the small ones.
    distances = torch.cdist(
        features.float(), bank.float(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    # Equal pictures are no neighbours at distance 0: their weight is bounded, not infinite.
    distances = distances.clamp_min(MIN_DISTANCE)
    inside = places >= 0
    distances[inside.nonzero()[:, 0], places[inside]] = torch.inf
    nearest = distances.topk(min(neighbours, bank.shape[0] - 1), largest=False)
    weights = nearest.values.double().reciprocal()
    same = bank_labels[nearest.indices] == labels[:, None]
    share = (weights * same).sum(1) / weights.sum(1)
    return share.clamp_min(MIN_CONFIDENCE).log().float()
