"""Selection: a score table in, row ids out."""

from lc_engine.select.api import STRATEGIES, choose_gamma, select
from lc_engine.select.gamma import GammaChoice

__all__ = ["STRATEGIES", "GammaChoice", "choose_gamma", "select"]
