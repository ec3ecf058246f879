"""Samplers for training loops: another FlexRand subset each epoch, or a weight per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from lc_engine._util.grouped import rank_within_groups
from lc_engine.selection.arguments import check_gamma, check_seed
from lc_engine.selection.problem import prepare
from lc_engine.selection.strategies.flexrand import (
    easy_pool_sizes,
    expected_easy_counts,
    per_pool,
    pool_of_rows,
    sample_pools,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lc_engine.selection.budget import Bound
    from lc_engine.selection.columns import Scores


class FlexRandSampler(Sampler[int]):
    """Row indices of a FlexRand subset in random order, another subset each epoch.

    Every epoch has exactly the budget's number of rows; over the epochs every row of both pools is
    drawn. Call `set_epoch` before each epoch, as for torch's DistributedSampler; Lightning and the
    loaders of Hugging Face's Trainer do so themselves. Without it every epoch is the same subset.

    Args:
        scores: a ScoreTable or a mapping of columns; ids must be row indices of the data set.
        keep: a float in (0, 1] is a fraction, an int a count.
        gamma: FlexRand's split in [0, 1]; to choose one, see `choose_gamma`.
        by: the column whose values share the budget, or None.
        seed: of the draws; epoch e draws from (seed, e).
        score: the column of numbers that ranks rows.
        floor: least number per group; see `select`.
        cap: greatest number per group.
        noise_guard: share of each group to drop first; see `select`.

    Raises:
        ValueError: naming the invalid argument or column.
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
                'column "id" must hold the row indices of the data set, which a sampler yields'
            )
        self._ids, self._groups, self._sizes = rows.ids, rows.groups, rows.group_sizes
        self._rank = rank_within_groups(rows.hardness(score), rows.groups, rows.group_sizes)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, from 0."""
        self._epoch = epoch

    def subset(self) -> NDArray[np.int64]:
        """Return this epoch's ids, ascending."""
        return np.sort(self._draw(np.random.default_rng([self._seed, self._epoch])))

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        return iter(rng.permutation(np.sort(self._draw(rng))).tolist())

    def __len__(self) -> int:
        """Return the number of rows of one epoch: the budget."""
        return int(self._counts.sum())

    def _draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        kept = sample_pools(self._rank, self._groups, self._sizes, self._counts, self._gamma, rng)
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
    """Return each row's probability of being in a FlexRand subset, for weighted samplers.

    `torch.utils.data.WeightedRandomSampler(weights, num_samples=round(weights.sum()))` then draws
    easy and hard rows as often as FlexRand does, but with replacement.

    Args:
        scores: a ScoreTable or a mapping of columns.
        keep: a float in (0, 1] is a fraction, an int a count.
        gamma: FlexRand's split in [0, 1].
        by: the column whose values share the budget, or None.
        score: the column of numbers that ranks rows.
        floor: least number per group; see `select`.
        cap: greatest number per group.
        noise_guard: share of each group to drop first; see `select`.

    Returns:
        (rows of `scores`,) in the order of the table, 0 for rows dropped or of another status
        than "ok"; the sum is the budget.

    Raises:
        ValueError: naming the invalid argument or column.
    """
    rows, counts = prepare(scores, keep, by=by, floor=floor, cap=cap, noise_guard=noise_guard)
    sizes = rows.group_sizes
    easy = expected_easy_counts(sizes, counts, check_gamma(gamma))
    easy_sizes = easy_pool_sizes(sizes, gamma)
    pools = pool_of_rows(
        rank_within_groups(rows.hardness(score), rows.groups, sizes), rows.groups, easy_sizes
    )
    probability = per_pool(easy, counts) / np.maximum(per_pool(easy_sizes, sizes), 1)
    weights = np.zeros(rows.total)
    weights[rows.indices] = probability[pools]
    return weights
