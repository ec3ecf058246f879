"""The choice of γ, by a trial on features or by a rule."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection.auto_gamma.constants import CANDIDATES, MIN_TRIAL_ROWS, RULE
from lc_engine.selection.auto_gamma.cross_validation import CrossValidation
from lc_engine.selection.auto_gamma.rounds import two_rounds
from lc_engine.selection.one_thread import one_thread

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.selection.problem import Problem

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GammaChoice:
    """The γ that gamma="auto" chose, why, and at what cost.

    Attributes:
        gamma: γ for FlexRand; 0 is the random draw per group.
        reason: one sentence.
        gains: {γ: (mean gain over random in points of validation accuracy, its standard error over
            the validation folds)}.
        seconds: wall time of the choice.
    """

    gamma: float
    reason: str
    gains: dict[float, tuple[float, float]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def random(self) -> bool:
        """Whether the choice is to draw at random from each group."""
        return self.gamma == 0.0

    def __str__(self) -> str:
        gains = ", ".join(f"{g:g}: {m:+.2f}±{e:.2f}" for g, (m, e) in self.gains.items())
        chosen = "random per group" if self.random else f"gamma {self.gamma:g}"
        trial = f" [gain over random by gamma, points: {gains}]" if gains else ""
        return f"gamma=auto chose {chosen}: {self.reason} ({self.seconds:.2f} s){trial}"

    def log(self) -> None:
        """Log the choice; one of random is a warning, as it is not what was asked for."""
        _log.log(logging.WARNING if self.random else logging.INFO, "%s", self)


def log_one_pool(gamma: float) -> None:
    """Warn that with a γ of 0 or 1, which leaves one pool, FlexRand does not read the score."""
    _log.warning("gamma=%g leaves one pool: rows are drawn at random, whatever their score", gamma)


def choose(
    problem: Problem, *, score: str = "loss", features: ArrayLike | None = None, seed: int = 0
) -> GammaChoice:
    """Return the γ for a budget, with its reason, evidence and cost.

    Args:
        problem: rows and budgets.
        score: the column of numbers that ranks rows.
        features: (rows of the score table, D), of which a bounded sample is read; None: the rule
            decides.
        seed: of the trial's subsets.

    Raises:
        ValueError: features of another shape or not finite, or no label column beside features.
    """
    started = time.perf_counter()
    if features is None:
        choice = by_rule(problem.counts)
    else:
        with one_thread():
            choice = _by_trial(problem, problem.rows.hardness(score), features, seed)
    return GammaChoice(choice.gamma, choice.reason, choice.gains, time.perf_counter() - started)


def by_rule(counts: NDArray[np.int64]) -> GammaChoice:
    """Return the γ for the number of rows (G,) to keep of each group."""
    share = float(counts[counts > 0].mean())
    for bound, gamma in RULE:
        if share < bound:
            return GammaChoice(
                gamma, f"by rule, {share:.1f} rows a group being fewer than {bound:g}"
            )
    return GammaChoice(0.0, f"by rule, since at {share:.0f} rows a group no split helps")


def _by_trial(
    problem: Problem, hardness: NDArray[np.float32], features: ArrayLike, seed: int
) -> GammaChoice:
    rows = len(problem.rows)
    if rows < MIN_TRIAL_ROWS:
        choice = by_rule(problem.counts)
        return GammaChoice(choice.gamma, f"{rows} rows are too few for a trial; {choice.reason}")
    trial = CrossValidation(problem, hardness, features, np.random.default_rng(seed))
    if trial.classes < 2:
        return GammaChoice(0.0, "fewer than two classes have rows for a trial")
    best, gains = two_rounds(CANDIDATES, 0.0, trial.accuracy)
    if best is None:
        return GammaChoice(0.0, "no split beats random by more than its standard error", gains)
    reason = f"{gains[best][0]:+.2f} points over random on validation folds"
    return GammaChoice(best, reason, gains)
