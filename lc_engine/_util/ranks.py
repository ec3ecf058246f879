"""Rank correlation."""

from __future__ import annotations

from typing import Final

import numpy as np

# Scores closer than this are ties: which of them comes first is decided by rounding.
TIE: Final = 1e-6


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation of two columns (N,); ties share their mean rank.

    It is 1 if neither column varies, 0 if only one does.
    """
    one, other = _ranks(a), _ranks(b)
    varies = [bool(np.ptp(ranks)) for ranks in (one, other)]
    if not all(varies):
        return 0.0 if any(varies) else 1.0
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(np.round(values / TIE), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])
