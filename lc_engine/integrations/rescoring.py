"""torch and Lightning: a sampler that re-scores its rows with the head as it is trained.

    sampler = RescoringSampler(model.head, features, labels, keep=0.3, start=2, every=2)
    loader = DataLoader(dataset, batch_size=64, sampler=sampler)

Dynamic pruning as in InfoBatch (arXiv 2303.04947), but by the learning complexity of every row
instead of the loss of its last epoch: with cached features, one pass of `ops.LinearPlan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Sampler

from lc_engine import ops
from lc_engine.masking import Masking
from lc_engine.path.learning_path import LearningPath
from lc_engine.selection.sampler import FlexRandSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from lc_engine.ops import PathScores


class RescoringSampler(Sampler[int]):
    """Row indices of a FlexRand subset under the current head, or of all rows in some epochs.

    Call `set_epoch` before each epoch, as for torch's DistributedSampler. Lightning does so itself,
    but no epoch can be longer than the first, whose batches it counts: with `stop`, `start` must
    be at least 1.

    Args:
        head: the classifier that is trained, read whenever rows are scored.
        features: (N, D) the head's input for each row of the data set: of a frozen backbone, or
            cached from time to time.
        labels: (N,) integers.
        keep: a float in (0, 1] is a fraction, an int a count.
        gamma: FlexRand's split between easy and hard, in [0, 1].
        path: sub-models of the head; default `LearningPath.gauss(8)`.
        start: first epoch, from 0, with a subset; earlier ones have all rows.
        every: epochs from one scoring to the next; in between, another subset is drawn from the
            same scores.
        stop: first epoch with all rows again (as InfoBatch ends), None for none.
        seed: of the draws.

    Attributes:
        scores: of the last scoring, None before it.

    Raises:
        ValueError: naming the invalid argument.
    """

    def __init__(
        self,
        head: nn.Linear,
        features: Tensor,
        labels: Tensor,
        keep: float,
        *,
        gamma: float = 0.5,
        path: LearningPath | None = None,
        start: int = 1,
        every: int = 1,
        stop: int | None = None,
        seed: int = 0,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        if start < 0 or (stop is not None and stop <= start):
            raise ValueError(
                f"start must be at least 0 and stop above it, got start={start}, stop={stop}"
            )
        self._head, self._features, self._labels = head, features, labels
        self._keep, self._gamma, self._seed = keep, gamma, seed
        self._path = LearningPath.gauss() if path is None else path
        self._start, self._every, self._stop = start, every, stop
        self.scores: PathScores | None = None
        self._scored_epoch = -1
        self._subsets = self._score()  # finds invalid arguments before training begins
        self.scores = None
        self._epoch = 0
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, from 0; scores the rows if that is due."""
        self._epoch = epoch
        if not self._has_subset():
            return
        due = epoch - (epoch - self._start) % self._every
        if due != self._scored_epoch:
            self._subsets, self._scored_epoch = self._score(), due
        self._subsets.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        if self._has_subset():
            return iter(self._subsets)
        rng = np.random.default_rng([self._seed, self._epoch])
        return iter(rng.permutation(len(self._labels)).tolist())

    def __len__(self) -> int:
        """Return the number of rows of this epoch."""
        return len(self._subsets) if self._has_subset() else len(self._labels)

    def _has_subset(self) -> bool:
        return self._start <= self._epoch and (self._stop is None or self._epoch < self._stop)

    def _score(self) -> FlexRandSampler:
        device = self._features.device
        weight = self._head.weight.detach().to(device)
        bias = None if self._head.bias is None else self._head.bias.detach().to(device)
        masks = Masking(weights="head").masks({"weight": weight}, self._path)
        thresholds, saliency = masks.of(0, weight)
        plan = ops.LinearPlan(
            weight,
            bias,
            thresholds,
            path_weights=torch.tensor(self._path.weights),
            saliency=saliency,
        )
        self.scores = plan(self._features, self._labels)
        columns = {
            "id": np.arange(len(self._labels)),
            "label": self._labels.cpu().numpy(),
            "loss": self.scores.loss.cpu().numpy(),
        }
        return FlexRandSampler(columns, self._keep, gamma=self._gamma, seed=self._seed)
