"""Which weights of a model are masked, and the nested masks of its sub-models."""

from lc_engine.masking.account import MaskAccount, MaskingWarning
from lc_engine.masking.masking import Masking
from lc_engine.masking.masks import Masks

__all__ = ["MaskAccount", "Masking", "MaskingWarning", "Masks"]
