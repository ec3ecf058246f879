"""Calibrated paths: capacities at equal steps of a model's measured confidence.

A fixed range does not suit every model: a compact model is at chance over most of 2 % to 100 %, and
those sub-models add noise; a robust model loses nothing at half its weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Capacities at which the confidence is measured: denser near 1, where compact models fall.
GRID: Final = (
    1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.4, 0.3, 0.2, 0.1, 0.02,
)  # fmt: skip


def equal_steps(
    capacities: NDArray[np.float64], confidence: NDArray[np.float64], points: int
) -> NDArray[np.float64]:
    """Return the capacities in the middle of K equal steps of confidence.

    Args:
        capacities: (G,) of the measured sub-models, descending.
        confidence: (G,) their mean confidence.
        points: K.

    Returns:
        (K,) capacities, descending. Where the confidence does not fall, they are evenly spaced.
    """
    # Confidence should only rise with the capacity; a fall is noise.
    rising = np.maximum.accumulate(confidence[::-1])
    steps = rising[-1] - (np.arange(points) + 0.5) / points * (rising[-1] - rising[0])
    if rising[-1] > rising[0]:
        found = np.interp(steps, rising, capacities[::-1])
    else:
        found = np.linspace(capacities[0], capacities[-1], points)
    inside: NDArray[np.float64] = np.clip(found, capacities[-1], capacities[0])
    return inside
