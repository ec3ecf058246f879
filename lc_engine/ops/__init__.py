"""The operators: tensors in, scores out. They know nothing of models, files or data sets."""

from lc_engine.ops.apply_thresholds import apply_thresholds
from lc_engine.ops.attention import attention
from lc_engine.ops.contract import FallbackWarning
from lc_engine.ops.layers.depthwise import DepthwisePlan
from lc_engine.ops.layers.gated_silu import gated_silu
from lc_engine.ops.layers.int8_convolution import Int8ConvolutionPlan
from lc_engine.ops.layers.int8_linear import Int8LinearPlan
from lc_engine.ops.layers.max_pool import max_pool
from lc_engine.ops.layers.rms_norm import rms_norm
from lc_engine.ops.layers.sparse_layer import SparseLayerPlan
from lc_engine.ops.layers.transformer_block import TransformerBlockPlan
from lc_engine.ops.layers.winograd import WinogradPlan
from lc_engine.ops.linear_confidence import LinearPlan, linear_confidence
from lc_engine.ops.masked_linear import masked_linear
from lc_engine.ops.mlp_confidence import MLPPlan, mlp_confidence
from lc_engine.ops.path_scores import PathScores
from lc_engine.ops.prototype_confidence import PrototypePlan, prototype_confidence
from lc_engine.ops.token_nll import TokenScores, token_nll

__all__ = [
    "DepthwisePlan",
    "FallbackWarning",
    "Int8ConvolutionPlan",
    "Int8LinearPlan",
    "LinearPlan",
    "MLPPlan",
    "PathScores",
    "PrototypePlan",
    "SparseLayerPlan",
    "TokenScores",
    "TransformerBlockPlan",
    "WinogradPlan",
    "apply_thresholds",
    "attention",
    "gated_silu",
    "linear_confidence",
    "masked_linear",
    "max_pool",
    "mlp_confidence",
    "prototype_confidence",
    "rms_norm",
    "token_nll",
]
