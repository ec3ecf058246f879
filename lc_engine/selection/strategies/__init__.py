"""Selection strategies by name.

A strategy is a function of a Problem and a random generator, with what else it reads as keyword
arguments: `score`, `features`, `gamma`, or options of its own. It returns indices into the rows.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from lc_engine.selection.strategies import feature_space, score_based, uncertainty
from lc_engine.selection.strategies.flexrand import flexrand
from lc_engine.selection.strategies.herding import guarded_herding, herding
from lc_engine.selection.strategies.k_center import kcenter

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

STRATEGIES: dict[str, Callable[..., NDArray[np.intp]]] = {
    "easy": score_based.easy,
    "easy_diverse": feature_space.easy_diverse,
    "el2n": uncertainty.el2n,
    "entropy": uncertainty.entropy,
    "flexrand": flexrand,
    "guarded_herding": guarded_herding,
    "hard": score_based.hard,
    "herding": herding,
    "kcenter": kcenter,
    "least_confidence": uncertainty.least_confidence,
    "margin": uncertainty.margin,
    "moderate": feature_space.moderate,
    "random": score_based.random,
    "stratified": score_based.stratified,
}
_ARGUMENTS_OF_SELECT = ("features", "gamma", "score")


def keywords(strategy: str) -> list[str]:
    """Return the names of all keyword arguments of a strategy."""
    parameters = inspect.signature(STRATEGIES[strategy]).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def options(strategy: str) -> list[str]:
    """Return the names of the options that only this strategy has."""
    return [name for name in keywords(strategy) if name not in _ARGUMENTS_OF_SELECT]
