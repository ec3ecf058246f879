"""Cross-validation of γ: accuracy of ridge classifiers trained on FlexRand subsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from lc_engine._util.grouped import rank_within_groups, sample_per_group
from lc_engine.data.batch import NO_LABEL
from lc_engine.selection.auto_gamma.constants import (
    FOLDS,
    MAX_BUDGET,
    MAX_VALIDATION,
    MIN_GROUPS,
    MIN_ROWS,
    MIN_SHARE,
    WIDTH,
)
from lc_engine.selection.budget import apportion
from lc_engine.selection.eligible import HARDNESS
from lc_engine.selection.linear_probe import principal_components, ridge_predict
from lc_engine.selection.problem import Problem
from lc_engine.selection.strategies.flexrand import sample_pools

# On a long-tailed set accuracy as the rows are rewards leaving out the tail.
Objective = Literal["balanced", "as-is"]

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.features import Features
    from lc_engine.selection.eligible import EligibleRows

    Keep: TypeAlias = Callable[
        [Problem, NDArray[np.float32], str, np.random.Generator], NDArray[np.intp]
    ]


def _subsample(
    problem: Problem, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return a smaller problem of the same kind: fewer groups first, then fewer rows.

    The rows kept per group stay the same if MAX_BUDGET allows, and so does their share of the data
    where it is above MIN_SHARE: below, FlexRand's pools are never exhausted, and the share has no
    effect.

    Returns:
        Row indices, ascending, and the budget (G,) of each group in the smaller problem.
    """
    rows, counts = problem
    order = rng.permutation(np.flatnonzero(counts))
    fit = int((np.cumsum(counts[order]) <= MAX_BUDGET).sum())
    order = order[: max(fit, MIN_GROUPS)]
    wanted, sizes = np.zeros_like(counts), np.zeros_like(counts)
    wanted[order], sizes[order] = counts[order], rows.group_sizes[order]
    shrink = min(1.0, MAX_BUDGET / wanted.sum())
    budget = np.where(wanted > 0, np.maximum(1, np.rint(wanted * shrink)), 0).astype(np.int64)
    fraction = shrink
    if wanted.sum() <= MIN_SHARE * sizes.sum():
        fraction = max(MIN_ROWS, budget.sum() / MIN_SHARE) / sizes.sum()
    drawn = np.clip(np.ceil(fraction * sizes).astype(np.int64), budget, sizes)
    return np.sort(sample_per_group(rows.groups, drawn, rng)), budget


def _labelled(
    rows: EligibleRows, kept: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return those of `kept` (n,) that have a label, and their labels."""
    labels = rows.take(kept).labels()
    known = labels != NO_LABEL
    return kept[known], labels[known]


class _Fold:
    """Rows to draw training subsets from, and rows to validate on."""

    def __init__(
        self,
        train: NDArray[np.intp],
        validation: NDArray[np.intp],
        rows: EligibleRows,
        hardness: NDArray[np.float32],
        budget: NDArray[np.int64],
    ) -> None:
        self.train, self.validation = train, validation[:MAX_VALIDATION]
        self.rows = rows.take(train)
        self.groups = self.rows.groups
        self.sizes = np.bincount(self.groups, minlength=len(budget))
        self.rank = rank_within_groups(hardness[train], self.groups, self.sizes)
        self.counts = np.minimum(budget, self.sizes)
        share = budget.sum() / len(rows)
        if share > MIN_SHARE:  # a fold is missing: shrink the budget alike, or pools run dry sooner
            total = min(max(1, round(share * len(train))), int(self.counts.sum()))
            self.counts = apportion(budget, total, cap=self.sizes)

    def draw(self, gamma: float, rng: np.random.Generator) -> NDArray[np.intp]:
        """Return a FlexRand subset of the rows to train on."""
        kept = sample_pools(self.rank, self.groups, self.sizes, self.counts, gamma, rng)
        return np.asarray(self.train[kept])


class CrossValidation:
    """FlexRand subsets of a bounded subsample, and how well a ridge classifier learns from them.

    Args:
        problem: rows and budgets.
        hardness: (N,) of each row, high = hard.
        features: (rows of the score table, D).
        rng: of the subsample, the folds and the draws.
        objective: "balanced" is the mean of the classes' accuracies, "as-is" that of the rows.
        partitions: of the rows into FOLDS folds each; draws go through the folds of all.

    Raises:
        ValueError: features of another shape or not finite, or no label column.

    Attributes:
        classes: of the rows, which have a label; with fewer than two there is no trial.
    """

    def __init__(
        self,
        problem: Problem,
        hardness: NDArray[np.float32],
        features: ArrayLike | Features,
        rng: np.random.Generator,
        objective: Objective = "balanced",
        partitions: int = 1,
    ) -> None:
        self.objective = objective
        kept, budget = _subsample(problem, rng)
        kept, labels = _labelled(problem.rows, kept)
        rows, hardness = problem.rows.take(kept), hardness[kept]
        budget = np.minimum(budget, rows.group_sizes)
        names, self.labels = np.unique(labels, return_inverse=True)
        self.classes = len(names) if len(rows) >= FOLDS else 0
        if self.classes < 2:
            return
        self.features = principal_components(rows.align(features), WIDTH, rng)
        rows = rows.in_memory(hardness)
        self.folds = [
            _Fold(np.flatnonzero(fold != i), np.flatnonzero(fold == i), rows, hardness, budget)
            for fold in (rng.permutation(len(rows)) % FOLDS for _ in range(partitions))
            for i in range(FOLDS)
        ]
        self.seed = int(rng.integers(1 << 62))

    def accuracy(self, gamma: float, draws: range) -> NDArray[np.float64]:
        """Return the validation accuracy (len(draws),) of subsets drawn with γ.

        Draw i has the same fold and the same random numbers for every γ, so that differences
        between two γ are paired.
        """
        found = np.zeros(len(draws))
        for i, draw in enumerate(draws):
            fold = self.folds[draw % len(self.folds)]
            kept = fold.draw(gamma, np.random.default_rng([self.seed, draw]))
            if len(kept):  # else all rows of the budget are in the validation fold
                found[i] = self._validate(kept, fold.validation)
        return found

    def accuracy_of(self, keep: Keep) -> NDArray[np.float64]:
        """Return the validation accuracy (folds,) of the rows that a strategy keeps.

        As `accuracy`, for a strategy that keeps the same rows in every draw: draw i has that of
        fold i modulo their number.

        Args:
            keep: (problem, features, score, rng) -> indices into the problem's rows.
        """
        found = np.zeros(len(self.folds))
        for number, fold in enumerate(self.folds):
            if fold.counts.any():  # else all rows of the budget are in the validation fold
                problem = Problem(fold.rows, fold.counts)
                rng = np.random.default_rng([self.seed, number])
                kept = fold.train[keep(problem, self.features[fold.train], HARDNESS, rng)]
                found[number] = self._validate(kept, fold.validation)
        return found

    def _validate(self, kept: NDArray[np.intp], validation: NDArray[np.intp]) -> float:
        predicted = ridge_predict(
            self.features[kept], self.labels[kept], self.classes, self.features[validation]
        )
        truth = self.labels[validation]
        if self.objective == "as-is":
            return float(np.mean(predicted == truth))
        correct = np.bincount(truth, predicted == truth, minlength=self.classes)
        present = np.bincount(truth, minlength=self.classes)
        return float(np.mean(correct[present > 0] / present[present > 0]))
