"""The trial of gamma="auto": subsets of a thinned problem, judged on folds of the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection import grouped as draw
from lc_engine.selection.budget import apportion
from lc_engine.selection.linear_probe import principal_components, ridge_predict
from lc_engine.selection.strategies.flexrand import draw_ranked

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.selection.eligible import Rows

FOLDS = 4
MAX_BUDGET = 2048  # rows of a trial subset
MIN_GROUPS = 10  # groups that the trial keeps at least, if there are so many
MIN_SHARE = 0.1  # a smaller share of the data is not told from this one: γ does not depend on it
MIN_ROWS = 4096  # rows of the trial, validation included, where the data has them
MAX_VALIDATION = 1024
WIDTH = 128  # features are reduced to so many principal components


def _thin(
    rows: Rows, counts: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Thin the problem to a bounded one of the same kind: fewer groups first, then fewer rows.

    The rows kept per group stay what they are as far as MAX_BUDGET allows, and so does their
    share of the data where it is above MIN_SHARE: below, FlexRand's pools are never exhausted
    and the share does not matter.

    Returns:
        Row indices, ascending, and the budget (G,) of each group in the thinned problem.
    """
    order = rng.permutation(np.flatnonzero(counts))
    fit = int((np.cumsum(counts[order]) <= MAX_BUDGET).sum())
    order = order[: max(fit, MIN_GROUPS)]
    wanted, sizes = np.zeros_like(counts), np.zeros_like(counts)
    wanted[order], sizes[order] = counts[order], rows.sizes[order]
    shrink = min(1.0, MAX_BUDGET / wanted.sum())
    budget = np.where(wanted > 0, np.maximum(1, np.rint(wanted * shrink)), 0).astype(np.int64)
    thin = shrink
    if wanted.sum() <= MIN_SHARE * sizes.sum():
        thin = max(MIN_ROWS, budget.sum() / MIN_SHARE) / sizes.sum()
    universe = np.clip(np.ceil(thin * sizes).astype(np.int64), budget, sizes)
    return np.sort(draw.uniform(rows.groups, universe, rng)), budget


class _Fold:
    """Rows to draw from, and rows to judge on."""

    def __init__(
        self,
        train: NDArray[np.intp],
        held: NDArray[np.intp],
        groups: NDArray[np.intp],
        hard: NDArray[np.float32],
        budget: NDArray[np.int64],
    ) -> None:
        self.train, self.validation = train, held[:MAX_VALIDATION]
        self.groups = groups[train]
        self.sizes = np.bincount(self.groups, minlength=len(budget))
        self.rank = draw.ranks(hard[train], self.groups, self.sizes)
        self.counts = np.minimum(budget, self.sizes)
        share = budget.sum() / len(groups)
        if share > MIN_SHARE:  # a fold is missing: the easy pool must run dry no sooner
            total = min(max(1, round(share * len(train))), int(self.counts.sum()))
            self.counts = apportion(budget, total, cap=self.sizes)

    def draw(self, gamma: float, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw a subset of the rows to train on."""
        kept = draw_ranked(self.rank, self.groups, self.sizes, self.counts, gamma, rng)
        return np.asarray(self.train[kept])


class Trial:
    """Subsets of the thinned problem, and how well a ridge classifier learns from them.

    Args:
        rows: the rows to choose from.
        counts: (G,) rows to keep of each group.
        hard: (N,) how hard each row is.
        features: (rows of the score table, D).
        rng: of the thinning, the folds and the draws.

    Raises:
        ValueError: features that do not fit, or no label column.
    """

    def __init__(
        self,
        rows: Rows,
        counts: NDArray[np.int64],
        hard: NDArray[np.float32],
        features: ArrayLike,
        rng: np.random.Generator,
    ) -> None:
        kept, budget = _thin(rows, counts, rng)
        rows, hard = rows.take(kept), hard[kept]
        names, self.labels = np.unique(rows.labels(), return_inverse=True)
        self.classes = len(names)
        self.features = principal_components(rows.align(features), WIDTH, rng)
        fold = rng.permutation(len(rows)) % FOLDS
        self.folds = [
            _Fold(np.flatnonzero(fold != i), np.flatnonzero(fold == i), rows.groups, hard, budget)
            for i in range(FOLDS)
        ]
        self.seed = int(rng.integers(1 << 62))

    def run(self, gamma: float, draws: range) -> NDArray[np.float64]:
        """Give the validation accuracy (len(draws),) of subsets drawn with γ.

        Accuracy is the mean over classes: for a long-tailed set the plain one would reward
        leaving the tail out.

        Draw i has the same fold and the same random numbers for every γ, so that the difference
        between two γ is measured in pairs.
        """
        accuracy = np.zeros(len(draws))
        for place, number in enumerate(draws):
            fold = self.folds[number % FOLDS]
            kept = fold.draw(gamma, np.random.default_rng([self.seed, number]))
            if len(kept):  # else the fold held the budget's only rows: nothing is learnt
                accuracy[place] = self._judge(kept, fold.validation)
        return accuracy

    def _judge(self, kept: NDArray[np.intp], validation: NDArray[np.intp]) -> float:
        guess = ridge_predict(
            self.features[kept], self.labels[kept], self.classes, self.features[validation]
        )
        truth = self.labels[validation]
        right = np.bincount(truth, guess == truth, minlength=self.classes)
        present = np.bincount(truth, minlength=self.classes)
        return float(np.mean(right[present > 0] / present[present > 0]))
