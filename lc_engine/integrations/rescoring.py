"""A sampler that scores its rows again with the current head while that is being trained.

    sampler = RescoringSampler(model.head, features, labels, keep=0.3, start=2, every=2)
    loader = DataLoader(dataset, batch_size=64, sampler=sampler)

Pruning that follows the training, as InfoBatch (arXiv 2303.04947) has it by the loss of the last
epoch, here by the learning complexity of every row: with the features cached, that is one pass of
`ops.LinearPlan`.
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
    """Positions of a FlexRand subset under the head as it is now; in some epochs of all rows.

    Call `set_epoch` before each epoch, as for torch's DistributedSampler; Lightning does it itself,
    but counts the batches before the first epoch and makes no epoch longer than that: with `stop`,
    give it a `start` of 1 or more.

    Args:
        head: the classifier that is trained; it is read when an epoch is scored.
        features: (N, D) what the head gets for each row of the data set: of a frozen backbone, or
            cached from time to time.
        labels: (N,) integers.
        keep: a float in (0, 1] is a fraction, an int a count.
        gamma: FlexRand's split between easy and hard, in [0, 1].
        path: sub-models of the head; default `LearningPath.gauss(8)`.
        start: first epoch, from 0, of a subset; those before see all rows.
        every: epochs from one scoring to the next; between them the subset is drawn anew from the
            same scores.
        stop: first epoch that sees all rows again (InfoBatch ends so), None for none.
        seed: of the draws.

    Attributes:
        scores: of the last scoring, None before.

    Raises:
        ValueError: naming the argument that does not fit.
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
        self._subsets = self._score()  # says what does not fit before the training begins
        self.scores = None
        self._epoch = 0
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is, from 0; scores the rows if it is time."""
        self._epoch = epoch
        if not self._of_a_subset():
            return
        due = epoch - (epoch - self._start) % self._every
        if due != self._scored_epoch:
            self._subsets, self._scored_epoch = self._score(), due
        self._subsets.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        if self._of_a_subset():
            return iter(self._subsets)
        rng = np.random.default_rng([self._seed, self._epoch])
        return iter(rng.permutation(len(self._labels)).tolist())

    def __len__(self) -> int:
        """Return the rows of this epoch."""
        return len(self._subsets) if self._of_a_subset() else len(self._labels)

    def _of_a_subset(self) -> bool:
        return self._start <= self._epoch and (self._stop is None or self._epoch < self._stop)

    def _score(self) -> FlexRandSampler:
        device = self._features.device
        weight = self._head.weight.detach().to(device)
        bias = None if self._head.bias is None else self._head.bias.detach().to(device)
        thresholds = Masking(weights="head").thresholds({"weight": weight}, self._path)[:, 0]
        omega = torch.tensor(self._path.weights)
        plan = ops.LinearPlan(weight, bias, thresholds, path_weights=omega)
        self.scores = plan(self._features, self._labels)
        columns = {
            "id": np.arange(len(self._labels)),
            "label": self._labels.cpu().numpy(),
            "loss": self.scores.loss.cpu().numpy(),
        }
        return FlexRandSampler(columns, self._keep, gamma=self._gamma, seed=self._seed)
