"""Selection: a score table in, row ids out."""

from lc_engine.selection.api import choose_gamma, choose_strategy, select
from lc_engine.selection.auto_gamma.choice import GammaChoice
from lc_engine.selection.auto_strategy.choice import StrategyChoice
from lc_engine.selection.strategies import STRATEGIES

__all__ = [
    "STRATEGIES",
    "GammaChoice",
    "StrategyChoice",
    "choose_gamma",
    "choose_strategy",
    "select",
]
