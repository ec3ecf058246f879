"""Checks of the arguments that several selection functions take."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_gamma(gamma: Any) -> float:
    """Return γ as a float.

    Raises:
        ValueError: not a number in [0, 1].
    """
    number = isinstance(gamma, (int, float, np.integer, np.floating))
    if not number or isinstance(gamma, bool) or not 0.0 <= gamma <= 1.0:
        raise ValueError(f'gamma must be "auto" or a number in [0, 1], got {gamma!r}')
    return float(gamma)


def check_gamma_applies(gamma: Any, strategy: str, applies: bool) -> None:
    """Raise ValueError if γ is given to a strategy that has none."""
    if gamma != "auto" and not applies:
        raise ValueError(f"gamma is an argument of flexrand, not of strategy {strategy}")


def check_objective(objective: Any) -> None:
    """Raise ValueError if a trial has no such objective."""
    if objective not in ("balanced", "as-is"):
        raise ValueError(f'objective must be "balanced" or "as-is", got {objective!r}')


def check_seed(seed: Any) -> int:
    """Return the seed as an int.

    Raises:
        ValueError: not an int of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be an int of at least 0, got {seed!r}")
    return int(seed)
