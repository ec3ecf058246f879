"""How groups share the budget: n^α of their n rows each, with the α that a trial finds best."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lc_engine.selection.auto_gamma.constants import FIRST_DRAWS, MIN_TRIAL_ROWS
from lc_engine.selection.auto_gamma.cross_validation import CrossValidation
from lc_engine.selection.auto_gamma.rounds import over_folds
from lc_engine.selection.columns import optional_column
from lc_engine.selection.one_thread import one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from lc_engine.data.features import Features
    from lc_engine.selection.auto_gamma.cross_validation import Objective
    from lc_engine.selection.problem import Problem

_log = logging.getLogger(__name__)

BALANCES: Final = (1.0, 0.5, 0.0)  # α: as the data are, in between, equally


class BalanceChoice(NamedTuple):
    """The α that was chosen, and why.

    Attributes:
        balance: α.
        gains: {α: (mean gain over α = 1 in points of validation accuracy, its standard error)}.
    """

    balance: float
    gains: dict[float, tuple[float, float]]

    def log(self) -> None:
        """Log a choice that is not that of the data."""
        if self.balance < 1.0:
            mean, error = self.gains[self.balance]
            _log.info(
                "groups share the budget as rows^%g, %+.2f±%.2f points over a share as the data "
                "are: balance=1 keeps that",
                self.balance,
                mean,
                error,
            )


def choose_balance(
    problems: Mapping[float, Problem],
    features: ArrayLike | Features,
    seed: int,
    objective: Objective,
) -> BalanceChoice:
    """Return the α by which random rows train the best classifier.

    Args:
        problems: {α: rows and budgets}, among them α = 1.
        features: (rows of the score table, D), of which a bounded sample is read.
        seed: of the trial's subsets.
        objective: see `CrossValidation`.
    """
    counts = problems[1.0].counts
    rows = problems[1.0].rows
    different = {a: p for a, p in problems.items() if a == 1.0 or (p.counts != counts).any()}
    has_labels = optional_column(rows.scores, "label") is not None
    if len(different) == 1 or len(rows) < MIN_TRIAL_ROWS or not has_labels:
        return BalanceChoice(1.0, {})
    accuracy = {}
    for balance, problem in different.items():
        # Of the same seed: where all rows take part, folds and validation rows are the same.
        rng = np.random.default_rng(seed)
        none = np.zeros(len(problem.rows), dtype=np.float32)
        with one_thread():
            trial = CrossValidation(problem, none, features, rng, objective)
        if trial.classes < 2:
            return BalanceChoice(1.0, {})
        with one_thread():
            accuracy[balance] = trial.accuracy(0.0, range(FIRST_DRAWS))  # random
    gains = {a: over_folds(found - accuracy[1.0]) for a, found in accuracy.items() if a != 1.0}
    best = max(gains, key=lambda balance: gains[balance][0])
    mean, error = gains[best]
    return BalanceChoice(best if mean > error else 1.0, gains)
