"""Whether two ways return the same scores: checked before any speed is reported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lc_engine._util.ranks import TIE, spearman
from lc_engine.selection import select

if TYPE_CHECKING:
    from collections.abc import Mapping


class DisagreementError(RuntimeError):
    """The engine's scores are not those of the naive loop, so its speed is not reported."""


@dataclass(frozen=True)
class Tolerance:
    """How far two ways may differ.

    Attributes:
        difference: largest |Δlc| of any row.
        correlation: least Spearman rank correlation of lc.
        kept: least share of the kept rows that must be the same.
    """

    difference: float
    correlation: float
    kept: float


# The same float32 sums in another order.
EXACT: Final = Tolerance(1e-4, 0.999, 0.98)
# bfloat16 has 8 significant bits.
ROUNDED: Final = Tolerance(0.1, 0.9, 0.7)


@dataclass(frozen=True)
class Parity:
    """How one way's scores compare with the naive loop's.

    Attributes:
        difference: largest |Δlc|; NaN where a score is not finite or rows are missing.
        correlation: Spearman's, of lc.
        kept: rows that a selection keeps.
        same: of these, rows kept by both; the smaller count of the easiest and the hardest.
        tolerance: that was asked for.
    """

    difference: float
    correlation: float
    kept: int
    same: int
    tolerance: Tolerance

    @property
    def agrees(self) -> bool:
        """Whether the scores are the same within the tolerance."""
        return (
            self.difference <= self.tolerance.difference
            and self.correlation >= self.tolerance.correlation
            and self.same >= self.tolerance.kept * self.kept
        )

    @property
    def disagreement(self) -> str:
        """What is said of a way that does not agree."""
        close = self.difference <= self.tolerance.difference
        close = close and self.correlation >= self.tolerance.correlation
        if close and (1 - self.tolerance.kept) * self.kept < 1:  # no kept row may differ
            return f"another row among {self.kept} kept: give more --rows"
        return "its scores differ too much"


def compare(reference: np.ndarray, found: np.ndarray, keep: float, tolerance: Tolerance) -> Parity:
    """Compare a way's lc (N,) with the naive loop's (N,).

    Args:
        reference: of the naive loop, finite.
        found: of the other way.
        keep: the fraction that `select` keeps, once the easiest and once the hardest.
        tolerance: how far they may differ.
    """
    kept = len(_kept(reference, keep, "easy"))
    if reference.shape != found.shape or not np.isfinite(found).all():
        return Parity(math.nan, math.nan, kept, 0, tolerance)
    same = min(_same(reference, found, keep, strategy) for strategy in ("easy", "hard"))
    difference = float(np.abs(reference - found).max())
    return Parity(difference, spearman(reference, found), kept, same, tolerance)


def refuse_disagreement(parities: Mapping[str, Parity], engine: str, reference: str) -> None:
    """Raise unless the engine's scores are the naive loop's.

    Raises:
        DisagreementError: with the numbers.
    """
    parity = parities[engine]
    if not parity.agrees:
        asked = parity.tolerance
        raise DisagreementError(
            f"the scores of {engine!r} are not those of {reference!r}, so no speed is given: "
            f"largest |Δlc| {parity.difference:.2g} (at most {asked.difference:g} allowed), rank "
            f"correlation {parity.correlation:.4f} (at least {asked.correlation:g}), "
            f"{parity.same} of {parity.kept} kept rows the same (at least {asked.kept:.0%}). "
            "Please report this with the model and the data"
        )


def _kept(lc: np.ndarray, keep: float, strategy: str) -> np.ndarray:
    scores = {"id": np.arange(len(lc)), "lc": lc}
    count = max(1, round(keep * len(lc)))
    return np.asarray(select(scores, count, strategy, score="lc", by=None))


def _same(reference: np.ndarray, found: np.ndarray, keep: float, strategy: str) -> int:
    """Count the rows that both keep; a row that ties with the last one kept may be exchanged."""
    ours, theirs = (_kept(lc, keep, strategy) for lc in (reference, found))
    kept = reference[ours]
    cutoff = kept.min() if strategy == "easy" else kept.max()
    exchanged = np.setdiff1d(theirs, ours)
    tied = np.abs(reference[exchanged] - cutoff) <= TIE
    return len(ours) - len(exchanged) + int(tied.sum())
