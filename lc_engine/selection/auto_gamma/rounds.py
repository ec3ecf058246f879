"""The two rounds of a trial: all candidates in a few draws, then the best of them in more."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lc_engine.selection.auto_gamma.constants import FINALISTS, FIRST_DRAWS, FOLDS, MORE_DRAWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_Candidate = TypeVar("_Candidate")


def two_rounds(
    candidates: Sequence[_Candidate],
    random: _Candidate,
    accuracy: Callable[[_Candidate, range], NDArray[np.float64]],
) -> tuple[_Candidate | None, dict[_Candidate, tuple[float, float]]]:
    """Return the best candidate, None if it is not shown to beat random, and the gains of all.

    Args:
        candidates: what is compared.
        random: what they are compared with.
        accuracy: (candidate, numbers of the draws) -> validation accuracy of each draw.

    Returns:
        The best, if its gain exceeds its standard error; and {candidate: (mean gain in points, its
        standard error)}.
    """
    early, late = range(FIRST_DRAWS), range(FIRST_DRAWS, FIRST_DRAWS + MORE_DRAWS)
    base = accuracy(random, early)
    gains = {candidate: accuracy(candidate, early) - base for candidate in candidates}
    finalists = sorted(candidates, key=lambda candidate: -gains[candidate].mean())[:FINALISTS]
    base = accuracy(random, late)
    for candidate in finalists:
        gains[candidate] = np.append(gains[candidate], accuracy(candidate, late) - base)
    summary = {candidate: over_folds(gain) for candidate, gain in gains.items()}
    best = max(finalists, key=lambda candidate: summary[candidate][0])
    mean, error = summary[best]
    return best if mean > error else None, summary


def over_folds(gain: NDArray[np.float64], folds: int = FOLDS) -> tuple[float, float]:
    """Return the mean of the draws' gains and its standard error over the folds, in points.

    Over folds, since draws of one fold share its validation rows: an error over draws would be too
    small.
    """
    by_fold = 100 * gain.reshape(-1, folds).mean(0)
    return float(by_fold.mean()), float(by_fold.std(ddof=1) / folds**0.5)
