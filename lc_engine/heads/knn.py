"""The kNN head: the label's share of a row's nearest neighbours, weighted by 1/distance.

p(y|z) = Σ_{neighbours with label y} d⁻¹ / Σ_{neighbours} d⁻¹ (arXiv 2402.05356 v1, section 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from lc_engine.data.batch import OK, Batch
from lc_engine.data.failing_rows import Isolation
from lc_engine.data.sparse_texts import SparseTexts
from lc_engine.heads.base import SeenClassesHead
from lc_engine.heads.memory_bank import MemoryBank, may_be_in_bank, order_of_bank
from lc_engine.ops.prototype_confidence import MIN_DISTANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from lc_engine.backbone.interface import Views
    from lc_engine.data.batch import Source
    from lc_engine.data.protocols import Progress
    from lc_engine.heads.base import Rows

# Lower bound of p: without it, a row whose label no neighbour has would have an infinite loss.
MIN_CONFIDENCE = 1e-6


def knn_log_prob(
    features: Tensor,
    labels: Tensor,
    own: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    neighbours: int,
) -> Tensor:
    """Return log p of the label, from the nearest rows of a memory bank.

    Args:
        features: (N, D).
        labels: (N,) integers.
        own: (N,) int64 index of each row in the bank, −1 if it is not there: no row is its own
            neighbour.
        bank: (B, D) features of the bank's rows, B > 1; of rows at the same distance, the first
            are the nearest.
        bank_labels: (B,).
        neighbours: number that counts; all of the bank if it holds fewer.

    Returns:
        (N,) float32, at least log `MIN_CONFIDENCE`.
    """
    # Not by a matrix product, which loses small distances to cancellation.
    distances = torch.cdist(
        features.float(), bank.float(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    # Bounds the weight of a duplicate.
    distances = distances.clamp_min(MIN_DISTANCE)
    inside = own >= 0
    distances[inside.nonzero()[:, 0], own[inside]] = torch.inf
    nearest, index = _nearest(distances, min(neighbours, bank.shape[0] - 1))
    weights = nearest.double().reciprocal()
    same = bank_labels[index] == labels[:, None]
    share = (weights * same).sum(1) / weights.sum(1)
    return share.clamp_min(MIN_CONFIDENCE).log().float()


def _nearest(distances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the smallest distances (N, count) and their indices; of equals, the first."""
    found = distances.topk(count + 1, largest=False)
    values, index = found.values[:, :-1], found.indices[:, :-1]
    # topk takes any of equal distances, and in any order.
    tied = (found.values[:, 1:] == found.values[:, :-1]).any(1).nonzero()[:, 0]
    if len(tied):
        order = distances[tied].argsort(dim=1, stable=True)
        index = index.index_copy(0, tied, order[:, :count])
    return values, index


def memory_bank_of(
    source: Source,
    along_the_path: Callable[[Tensor], list[Tensor]],
    points: int,
    batch_size: int,
    progress: Progress | None,
) -> MemoryBank:
    """Return the features of up to `BANK_ROWS` rows under every sub-model, sorted by id.

    Rows that the model fails on are left out. Which others are taken depends on their ids, not on
    the order of the data.

    Args:
        source: the data.
        along_the_path: inputs (N, …) -> features of all sub-models, K × (N, D) on the host.
        points: K.
        batch_size: rows that go through the model at a time.
        progress: called as progress("neighbours", rows done, rows in all).

    Raises:
        ValueError: fewer than two rows with a label and finite features.
    """
    ids: list[np.ndarray] = []
    labels: list[Tensor] = []
    features: list[list[Tensor]] = [[] for _ in range(points)]
    done = 0
    isolation = Isolation(lambda rows: along_the_path(rows.inputs), source)
    for batch in source.batches(batch_size):
        chosen = _scorable(batch, may_be_in_bank(batch.ids, len(source)))
        done += len(batch)
        for piece, every in isolation.each(chosen) if len(chosen) else ():
            if isinstance(every, Exception):
                continue
            finite = torch.stack([values.isfinite().all(1) for values in every]).all(0)
            ids.append(piece.ids[finite.numpy()])
            labels.append(piece.labels[finite])
            for kept, values in zip(features, every, strict=True):
                kept.append(values[finite])
        if progress is not None:
            progress("neighbours", done, len(source))
    if sum(map(len, ids)) < 2:
        raise ValueError(
            "a kNN head needs at least two rows with a label and finite features; there were "
            f"{sum(map(len, ids))}"
        )
    # Ties of distance go to the first row: by id, they do not depend on the order of the data.
    names = np.concatenate(ids)
    order = order_of_bank(names)
    there = torch.from_numpy(order)
    return MemoryBank(
        names[order],
        torch.cat(labels)[there],
        tuple(torch.cat(values)[there] for values in features),
    )


def _scorable(batch: Batch, chosen: np.ndarray) -> Batch:
    """Return those of the chosen rows (B,) whose status is ok, as a batch."""
    ok = np.array([status == OK for status in batch.status])
    there = torch.from_numpy(ok & chosen)
    return Batch(
        ids=batch.ids[ok & chosen],
        inputs=batch.inputs[torch.from_numpy(chosen[ok])],
        labels=batch.labels[there],
        status=SparseTexts(int(there.sum()), OK),
        detail=SparseTexts(int(there.sum()), ""),
    )


class KNNHead(SeenClassesHead):
    """Nearest neighbours in a memory bank; see `knn_log_prob`.

    Args:
        views: the sub-models.
        path_weights: (K,) ω_k.
        bank: rows of the data under all sub-models.
        neighbours: number that counts.
    """

    def __init__(
        self, views: Views, path_weights: Tensor, bank: MemoryBank, neighbours: int
    ) -> None:
        super().__init__(views, path_weights)
        self.labels = bank.classes
        self._bank = bank
        self._neighbours = neighbours
        self._features = [values.to(path_weights.device) for values in bank.features]
        self._classes = self.class_index(bank.labels).to(path_weights.device)

    def reject_reason(self, label: int) -> str:
        """Return why a label has no class here."""
        return f"class {label} has no row in the memory bank"

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Return log p (P, N)."""
        own = self._bank.index_of(rows.ids).to(rows.classes.device)
        found = []
        for k, values in zip(points, self.views.features(rows.inputs, points), strict=True):
            log_prob = knn_log_prob(
                values, rows.classes, own, self._features[k], self._classes, self._neighbours
            )
            found.append(log_prob.masked_fill(~values.isfinite().all(1), torch.nan))
        return torch.stack(found)
