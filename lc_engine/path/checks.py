"""Checks of a path's numbers."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUM_TOLERANCE: Final = 1e-9


def check_path(capacities: Sequence[float], weights: Sequence[float]) -> None:
    """Check that capacities descend in (0, 1] and that their weights are a mean's.

    Raises:
        ValueError: naming the field that does not fit.
    """
    if not capacities:
        raise ValueError("capacities must hold at least one number, got none")
    if len(weights) != len(capacities):
        raise ValueError(
            f"weights must hold one number per capacity ({len(capacities)}), got {len(weights)}"
        )
    for k, capacity in enumerate(capacities):
        if not 0 < capacity <= 1:
            raise ValueError(f"capacities[{k}] must lie in (0, 1], got {capacity}")
    if any(b > a for a, b in pairwise(capacities)):
        raise ValueError("capacities must be descending: sub-model 0 is the densest")
    for k, weight in enumerate(weights):
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"weights[{k}] must be a number ≥ 0, got {weight}")
    if abs(math.fsum(weights) - 1) > _SUM_TOLERANCE:
        raise ValueError(f"weights must sum to 1, got {math.fsum(weights)}")


def check_points(points: int) -> None:
    """Raise ValueError unless K is at least 1."""
    if points < 1:
        raise ValueError(f"K must be at least 1, got {points}")


def check_range(lo: float, hi: float) -> None:
    """Raise ValueError unless 0 < lo < hi ≤ 1."""
    if not 0 < lo < hi <= 1:
        raise ValueError(f"lo and hi must satisfy 0 < lo < hi ≤ 1, got lo={lo}, hi={hi}")
