"""gamma="auto": choose FlexRand's split without a fine-tuning run.

With features: for a handful of γ, draw subsets as FlexRand would, fit a closed-form classifier
(ridge regression on the features) to each, and compare its accuracy on a validation fold of the
training rows with that of random subsets of the same size and the same fold. Everything is capped
(rows, width, subsets), so the cost does not grow with the data set. Without features: a rule on the
budget per group, learnt on data sets other than those it was tested on (docs/selection.md).

Both answer γ = 0, the random draw per group, where the split cannot be shown to help.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lc_engine.selection.auto_gamma.cross_validation import FOLDS, Trial
from lc_engine.selection.strategies.flexrand import hardness

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.selection.eligible import Rows

CANDIDATES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
FIRST_DRAWS = 12  # subsets of every candidate …
MORE_DRAWS = 24  # … and of the FINALISTS best ones; both multiples of FOLDS
FINALISTS = 2
TOO_FEW = 40  # rows that no validation fold is worth taking from

# (rows per group below which it holds, γ); above the last, random.
RULE = ((8.0, 0.1), (20.0, 0.2), (50.0, 0.35))


@dataclass(frozen=True)
class GammaChoice:
    """What gamma="auto" chose, why, and what that cost.

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
        """Whether the choice is not to interfere: draw at random from each group."""
        return self.gamma == 0.0

    def __str__(self) -> str:
        gains = ", ".join(f"{g:g}: {m:+.2f}±{e:.2f}" for g, (m, e) in self.gains.items())
        chosen = "random per group" if self.random else f"gamma {self.gamma:g}"
        trial = f" [gain over random by gamma, points: {gains}]" if gains else ""
        return f"gamma=auto chose {chosen}: {self.reason} ({self.seconds:.2f} s){trial}"


def choose(
    rows: Rows,
    counts: NDArray[np.int64],
    *,
    score: str = "loss",
    features: ArrayLike | None = None,
    seed: int = 0,
) -> GammaChoice:
    """Choose γ for a budget.

    Args:
        rows: the rows to choose from.
        counts: (G,) rows to keep of each group.
        score: "loss" or "lc".
        features: (rows of the score table, D); only a bounded sample is read, so a memory map
            will do. None: the rule decides.
        seed: of the trial's subsets.

    Returns:
        The choice, with its reason, its evidence and its cost.

    Raises:
        ValueError: features that do not fit, or no label column beside features.
    """
    started = time.perf_counter()
    if features is None:
        choice = by_rule(counts)
    else:
        choice = _by_trial(rows, counts, hardness(rows, score), features, seed)
    return GammaChoice(choice.gamma, choice.reason, choice.gains, time.perf_counter() - started)


def by_rule(counts: NDArray[np.int64]) -> GammaChoice:
    """Choose γ by the number of rows (G,) to keep of each group alone."""
    share = float(counts[counts > 0].mean())
    for bound, gamma in RULE:
        if share < bound:
            return GammaChoice(
                gamma, f"by rule, {share:.1f} rows a group being fewer than {bound:g}"
            )
    return GammaChoice(0.0, f"by rule, since at {share:.0f} rows a group no split helps")


def _by_trial(
    rows: Rows,
    counts: NDArray[np.int64],
    hard: NDArray[np.float32],
    features: ArrayLike,
    seed: int,
) -> GammaChoice:
    rng = np.random.default_rng(seed)
    if len(rows) < TOO_FEW:
        choice = by_rule(counts)
        return GammaChoice(choice.gamma, f"{len(rows)} rows are too few to try on; {choice.reason}")
    trial = Trial(rows, counts, hard, features, rng)
    if trial.classes < 2:
        return GammaChoice(0.0, "fewer than two classes have rows to try on")
    accuracy = {gamma: trial.run(gamma, range(FIRST_DRAWS)) for gamma in (0.0, *CANDIDATES)}
    first = {gamma: accuracy[gamma] - accuracy[0.0] for gamma in CANDIDATES}
    finalists = sorted(CANDIDATES, key=lambda gamma: -first[gamma].mean())[:FINALISTS]
    more = range(FIRST_DRAWS, FIRST_DRAWS + MORE_DRAWS)
    base = trial.run(0.0, more)
    gains = {
        gamma: np.concatenate([first[gamma], trial.run(gamma, more) - base])
        if gamma in finalists
        else first[gamma]
        for gamma in CANDIDATES
    }
    summary = {gamma: _over_folds(gain) for gamma, gain in gains.items()}
    best = max(finalists, key=lambda gamma: summary[gamma][0])
    mean, error = summary[best]
    if mean > error:
        return GammaChoice(best, f"{mean:+.2f} points over random on validation folds", summary)
    return GammaChoice(0.0, "no split beats random by more than its standard error", summary)


def _over_folds(gain: NDArray[np.float64]) -> tuple[float, float]:
    """Give the mean of the draws' gains and its standard error over the folds, in points.

    Draws of one fold share its validation rows, and with them the luck of what these are: taken as
    independent they would look surer than they are.
    """
    folds = 100 * gain.reshape(-1, FOLDS).mean(0)
    return float(folds.mean()), float(folds.std(ddof=1) / FOLDS**0.5)
