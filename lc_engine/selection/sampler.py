"""Selection inside a training loop: a FlexRand subset drawn anew each epoch, and row weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from lc_engine.selection import grouped as draw
from lc_engine.selection.api import check_gamma, check_seed
from lc_engine.selection.problem import prepare
from lc_engine.selection.strategies import flexrand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lc_engine.selection.budget import Bound
    from lc_engine.selection.eligible import Scores


class FlexRandSampler(Sampler[int]):
    """Positions of a FlexRand subset, in random order, another one each epoch.

    Every epoch visits exactly the budget; over the epochs all rows of both pools get their turn.
    Call `set_epoch` before each epoch, as for torch's DistributedSampler; Lightning and the
    loaders of Hugging Face's Trainer do it themselves. Without it every epoch is the same subset.

    Args:
        scores: a ScoreTable or a mapping of columns; ids must be the data set's positions.
        keep: a float in (0, 1] is a fraction, an int a count.
        gamma: FlexRand's split in [0, 1]; for a choice made once, see `choose_gamma`.
        by: the column whose values share the budget, or None.
        seed: of the draws; epoch e draws from (seed, e).
        score: "loss" or "lc".
        floor: least number per group; see `select`.
        cap: greatest number per group.
        noise_guard: share of each group to set aside; see `select`.

    Raises:
        ValueError: naming the argument or column that does not fit.
    """

    def __init__(
        self,
        scores: Scores,
        keep: float,
        *,
        gamma: float,
        by: str | None = "label",
        seed: int = 0,
        score: str = "loss",
        floor: Bound = None,
        cap: Bound = None,
        noise_guard: float = 0.0,
    ) -> None:
        self._gamma, self._seed, self._epoch = check_gamma(gamma), check_seed(seed), 0
        rows, self._counts = prepare(
            scores, keep, by=by, floor=floor, cap=cap, noise_guard=noise_guard
        )
        if rows.ids.dtype.kind not in "iu" or int(rows.ids.min()) < 0:
            raise ValueError(
                'column "id" must hold the positions of the rows in the data set: a sampler gives '
                "these to the loader"
            )
        self._ids, self._groups, self._sizes = rows.ids, rows.groups, rows.sizes
        self._rank = draw.ranks(flexrand.hardness(rows, score), rows.groups, rows.sizes)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is, from 0."""
        self._epoch = epoch

    def subset(self) -> NDArray[np.int64]:
        """Give this epoch's ids, ascending."""
        return np.sort(self._draw(np.random.default_rng([self._seed, self._epoch])))

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        return iter(rng.permutation(np.sort(self._draw(rng))).tolist())

    def __len__(self) -> int:
        """Return the rows of one epoch: the budget."""
        return int(self._counts.sum())

    def _draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        kept = flexrand.draw_ranked(
            self._rank, self._groups, self._sizes, self._counts, self._gamma, rng
        )
        return np.asarray(self._ids[kept], dtype=np.int64)


def flexrand_weights(
    scores: Scores,
    keep: float,
    *,
    gamma: float,
    by: str | None = "label",
    score: str = "loss",
    floor: Bound = None,
    cap: Bound = None,
    noise_guard: float = 0.0,
) -> NDArray[np.float64]:
    """Give each row's chance to be in a FlexRand subset, for samplers that take weights.

    `torch.utils.data.WeightedRandomSampler(weights, num_samples=round(weights.sum()))` then sees
    easy and hard rows as often as FlexRand does, but with replacement.

    Args:
        scores: a ScoreTable or a mapping of columns.
        keep: a float in (0, 1] is a fraction, an int a count.
        gamma: FlexRand's split in [0, 1].
        by: the column whose values share the budget, or None.
        score: "loss" or "lc".
        floor: least number per group; see `select`.
        cap: greatest number per group.
        noise_guard: share of each group to set aside; see `select`.

    Returns:
        (rows of `scores`,) in the order of the table, 0 for rows set aside or of another status
        than "ok"; the sum is the budget.

    Raises:
        ValueError: naming the argument or column that does not fit.
    """
    rows, counts = prepare(scores, keep, by=by, floor=floor, cap=cap, noise_guard=noise_guard)
    pool, easy = flexrand.split_exactly(rows.sizes, counts, check_gamma(gamma))
    rank = draw.ranks(flexrand.hardness(rows, score), rows.groups, rows.sizes)
    cells = flexrand.pool_cells(rank, rows.groups, pool)
    budget = np.stack([easy, counts - easy], 1).reshape(-1)
    size = np.stack([pool, rows.sizes - pool], 1).reshape(-1)
    weights = np.zeros(rows.total)
    weights[rows.positions] = (budget / np.maximum(size, 1))[cells]
    return weights
