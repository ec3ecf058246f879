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

from lc_engine.select import draw
from lc_engine.select.budget import apportion
from lc_engine.select.flexrand import draw_ranked, hardness
from lc_engine.select.probe import principal_components, ridge_predict

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.select.rows import Rows

CANDIDATES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
FOLDS = 4
FIRST_DRAWS = 12  # subsets of every candidate …
MORE_DRAWS = 24  # … and of the FINALISTS best ones …
SMALL_BUDGET = 512  # … twice as many where subsets are at most this large, and so cheap
FINALISTS = 2
MAX_BUDGET = 2048  # rows of a trial subset
MIN_GROUPS = 10  # groups that the trial keeps at least, if there are so many
MIN_SHARE = 0.1  # a smaller share of the data is not told from this one: γ does not depend on it
MIN_ROWS = 4096  # rows of the trial, validation included, where the data has them
MAX_VALIDATION = 1024
TOO_FEW = 40  # rows that no validation fold is worth taking from
WIDTH = 128  # features are reduced to so many principal components

# (rows per group below which it holds, γ); above the last, random.
RULE = ((8.0, 0.1), (20.0, 0.2), (50.0, 0.35))


@dataclass(frozen=True)
class GammaChoice:
    """What gamma="auto" chose, why, and what that cost.

    Attributes:
        gamma: γ for FlexRand; 0 is the random draw per group.
        reason: one sentence.
        gains: {γ: (mean gain over random in points of validation accuracy, standard error)}.
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
        choice = _by_rule(counts)
    else:
        choice = _by_trial(rows, counts, hardness(rows, score), features, seed)
    return GammaChoice(choice.gamma, choice.reason, choice.gains, time.perf_counter() - started)


def _by_rule(counts: NDArray[np.int64]) -> GammaChoice:
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
        choice = _by_rule(counts)
        return GammaChoice(choice.gamma, f"{len(rows)} rows are too few to try on; {choice.reason}")
    kept, budget = _sample(rows, counts, rng)
    trial = _Trial(rows.take(kept), hard[kept], budget, features, rng)
    if trial.classes < 2:
        return GammaChoice(0.0, "fewer than two classes have rows to try on")
    times = 2 if budget.sum() <= SMALL_BUDGET else 1
    start, stop = times * FIRST_DRAWS, times * (FIRST_DRAWS + MORE_DRAWS)
    accuracy = {gamma: trial.run(gamma, range(start)) for gamma in (0.0, *CANDIDATES)}
    first = {gamma: accuracy[gamma] - accuracy[0.0] for gamma in CANDIDATES}
    finalists = sorted(CANDIDATES, key=lambda gamma: -first[gamma].mean())[:FINALISTS]
    more = range(start, stop)
    base = trial.run(0.0, more)
    gains = {
        gamma: np.concatenate([first[gamma], trial.run(gamma, more) - base])
        if gamma in finalists
        else first[gamma]
        for gamma in CANDIDATES
    }
    summary = {
        gamma: (100 * float(gain.mean()), 100 * float(gain.std(ddof=1)) / len(gain) ** 0.5)
        for gamma, gain in gains.items()
    }
    best = max(finalists, key=lambda gamma: summary[gamma][0])
    mean, error = summary[best]
    if mean > error:
        return GammaChoice(best, f"{mean:+.2f} points over random on validation folds", summary)
    return GammaChoice(0.0, "no split beats random by more than its standard error", summary)


def _sample(
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
            self.counts = apportion(self.sizes, max(1, round(share * len(train))))

    def draw(self, gamma: float, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw a subset of the rows to train on."""
        kept = draw_ranked(self.rank, self.groups, self.sizes, self.counts, gamma, rng)
        return np.asarray(self.train[kept])


class _Trial:
    """Subsets of a thinned problem, and how well a ridge classifier learns from them."""

    def __init__(
        self,
        rows: Rows,
        hard: NDArray[np.float32],
        budget: NDArray[np.int64],
        features: ArrayLike,
        rng: np.random.Generator,
    ) -> None:
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
