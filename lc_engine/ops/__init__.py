"""The operators: tensors in, scores out. They know nothing of models, files or data sets."""

from lc_engine.ops.apply_thresholds import apply_thresholds
from lc_engine.ops.contract import FallbackWarning, PathScores
from lc_engine.ops.linear_confidence import LinearPlan, linear_confidence
from lc_engine.ops.mlp_confidence import MLPPlan, mlp_confidence
from lc_engine.ops.prototype_confidence import PrototypePlan, prototype_confidence

__all__ = [
    "FallbackWarning",
    "LinearPlan",
    "MLPPlan",
    "PathScores",
    "PrototypePlan",
    "apply_thresholds",
    "linear_confidence",
    "mlp_confidence",
    "prototype_confidence",
]
