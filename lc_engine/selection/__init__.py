"""Selection: a score table in, row ids out."""

from lc_engine.selection.api import STRATEGIES, choose_gamma, select
from lc_engine.selection.auto_gamma.choice import GammaChoice

__all__ = ["STRATEGIES", "GammaChoice", "choose_gamma", "select"]
