"""The choice of a strategy: by a trial on features of classes, else by rule."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection.auto_gamma.choice import by_rule
from lc_engine.selection.auto_gamma.constants import DRAWS_PER_FOLD, MIN_TRIAL_ROWS, PARTITIONS
from lc_engine.selection.auto_gamma.cross_validation import CrossValidation
from lc_engine.selection.auto_gamma.rounds import over_folds
from lc_engine.selection.auto_strategy.candidates import (
    ALL,
    FAVORITE,
    GUARD,
    RANDOM,
    Candidate,
)
from lc_engine.selection.columns import optional_column
from lc_engine.selection.noise_guard import has_ifd
from lc_engine.selection.one_thread import one_thread

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lc_engine.data.features import Features
    from lc_engine.selection.auto_gamma.cross_validation import Objective
    from lc_engine.selection.problem import Problem

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StrategyChoice:
    """The strategy that strategy="auto" chose, why, and at what cost.

    Attributes:
        candidate: the strategy, its γ and its noise guard.
        reason: one sentence.
        gains: {name of a candidate: (mean gain over random in points of validation accuracy, its
            standard error over the validation folds)}.
        seconds: wall time of the choice.
    """

    candidate: Candidate
    reason: str
    gains: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        best_first = sorted(self.gains.items(), key=lambda item: -item[1][0])
        gains = ", ".join(f"{name}: {mean:+.2f}±{error:.2f}" for name, (mean, error) in best_first)
        trial = f" [gain over random, points: {gains}]" if gains else ""
        return f"strategy=auto chose {self.candidate}: {self.reason} ({self.seconds:.2f} s){trial}"

    def log(self) -> None:
        """Log the choice; one of random is a warning, as the scores are then not used."""
        level = logging.WARNING if self.candidate == RANDOM else logging.INFO
        _log.log(level, "%s", self)


def choose(
    problem: Problem,
    *,
    score: str = "loss",
    features: ArrayLike | Features | None = None,
    seed: int = 0,
    objective: Objective = "balanced",
) -> StrategyChoice:
    """Return the strategy for a budget, with its reason, evidence and cost.

    Args:
        problem: rows and budgets.
        score: "loss" or "lc".
        features: (rows of the score table, D), of which a bounded sample is read; None: the rule
            of gamma="auto" decides between FlexRand and random.
        seed: of the trial's subsets.
        objective: see `CrossValidation`.

    Raises:
        ValueError: features of another shape or not finite.
    """
    started = time.perf_counter()
    if int(problem.counts.sum()) == len(problem.rows):
        return StrategyChoice(RANDOM, "all rows are kept, by any strategy")
    if features is None:
        choice = _by_rule(problem)
    else:
        with one_thread():
            choice = _by_trial(problem, score, features, seed, objective)
    return replace(choice, seconds=time.perf_counter() - started)


def _by_rule(problem: Problem, why: str = "") -> StrategyChoice:
    """Return what needs no trial.

    Of instruction data with `ifd`, random rows behind the guard: no proxy of a trial without
    classes is known to foretell fine-tuning (docs/selection.md). Otherwise FlexRand with the γ of
    its rule.

    Args:
        problem: rows and budgets.
        why: there is no trial, for the reason.
    """
    if has_ifd(problem.rows.scores):
        return StrategyChoice(
            Candidate("random", noise_guard=GUARD),
            f"the {100 * GUARD:g} % of highest ifd and loss, often wrong answers, are set aside; "
            "no other use of the scores of instructions is known to help",
        )
    found = by_rule(problem.counts)
    candidate = RANDOM if found.random else Candidate("flexrand", found.gamma)
    return StrategyChoice(candidate, f"{why}; {found.reason}" if why else found.reason)


def _by_trial(
    problem: Problem, score: str, features: ArrayLike | Features, seed: int, objective: Objective
) -> StrategyChoice:
    if optional_column(problem.rows.scores, "label") is None:
        return _by_rule(problem, "a trial needs a column label")
    rows = len(problem.rows)
    if rows < MIN_TRIAL_ROWS:
        return _by_rule(problem, f"{rows} rows are too few for a trial")
    hardness = problem.rows.hardness(score)
    rng = np.random.default_rng(seed)
    trial = CrossValidation(problem, hardness, features, rng, objective, PARTITIONS)
    if trial.classes < 2:
        return _by_rule(problem, "a trial needs rows of two classes")

    folds = len(trial.folds)
    base = trial.accuracy(0.0, range(DRAWS_PER_FOLD * folds)).reshape(-1, folds).mean(0)
    by_fold = {
        candidate: trial.accuracy_of(candidate.keep) - base
        for candidate in ALL
        if not candidate.noise_guard or _has_guard_columns(problem)
    }
    gains = {candidate: over_folds(gain, folds) for candidate, gain in by_fold.items()}
    best = max(gains, key=lambda candidate: gains[candidate][0])
    ahead, error = over_folds(by_fold[best] - by_fold[FAVORITE], folds)
    best = best if ahead > error else FAVORITE
    named = {str(candidate): gain for candidate, gain in gains.items()}
    mean, error = gains[best]
    if mean <= error:
        reason = "no strategy beats random by more than its standard error"
        return StrategyChoice(RANDOM, reason, named)
    return StrategyChoice(best, f"{mean:+.2f} points over random on validation folds", named)


def _has_guard_columns(problem: Problem) -> bool:
    scores = problem.rows.scores
    return all(optional_column(scores, name) is not None for name in ("lc", "lc_std"))
