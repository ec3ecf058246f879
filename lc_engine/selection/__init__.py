"""Selection: a score table in, row ids out."""

from lc_engine.selection.api import choose_gamma, select
from lc_engine.selection.auto_gamma.choice import GammaChoice
from lc_engine.selection.strategies import STRATEGIES

__all__ = ["STRATEGIES", "GammaChoice", "choose_gamma", "select"]
