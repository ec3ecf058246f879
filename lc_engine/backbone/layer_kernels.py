"""Forms: the ways in which a layer can be computed on a CPU, and which of them is the fastest.

A dense product takes as long at 2 % of its weights as at all of them. Layers with few weights left
go through lists of these (`ops.SparseLayerPlan`), 3 × 3 convolutions with more through fewer
multiplications (`ops.WinogradPlan`), and all others through oneDNN with weights that it has packed
before. Where products of 8-bit numbers are asked for, linear layers and convolutions go through
these (`ops.Int8LinearPlan`, `ops.Int8ConvolutionPlan`, `ops.WinogradPlan`). A convolution of each
channel by itself has a form of its own (`ops.DepthwisePlan`). What is left is torch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from lc_engine import ops
from lc_engine.backbone.trace import class_name
from lc_engine.ops.int8_linear import MOST_INPUTS
from lc_engine.ops.pixels import PlanActivation
from lc_engine.ops.sparse_layer import count_kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.backbone.passes.fuse_activations import Activation

Form = Literal["dense", "packed", "winograd", "int8", "int8_winograd", "lists"]
# Density below which lists beat a dense form, as measured on Zen 4: oneDNN's in bfloat16 takes half
# the time of one in float32, lists two thirds; Winograd's takes 0.6 of oneDNN's, packed weights
# 0.95, 8 bits 0.6 of bfloat16. What a list costs whatever its length, gathering inputs and writing
# outputs, weighs more the fewer outputs and inputs there are.
_DENSEST: dict[Form, dict[torch.dtype, float]] = {
    "dense": {torch.float32: 0.7, torch.bfloat16: 0.55},
    "packed": {torch.float32: 0.7, torch.bfloat16: 0.55},
    "winograd": {torch.float32: 0.42, torch.bfloat16: 0.33},
    "int8": {torch.float32: 0.25, torch.bfloat16: 0.3},
    "int8_winograd": {torch.float32: 0.15, torch.bfloat16: 0.2},
}
DTYPES = tuple(_DENSEST["dense"])
_PER_OUTPUT_AND_INPUT = 8.0
# Below these channels, and tiles of 2 × 2 outputs, transforms cost more than products they save.
_FEWEST_CHANNELS = 32
_FEWEST_TILES = 64
# Rows, or pixels, for which weights are worth packing.
_FEWEST_ROWS = 256
# What oneDNN calls activations: kind, numbers and algorithm. Its ReLU and ReLU6 make 0 of a NaN, by
# which a row that is not finite is told, so they are not among these.
Pointwise = tuple[str, list[float], str]
_POINTWISE: dict[Activation | None, Pointwise] = {
    None: ("none", [], ""),
    "gelu": ("gelu", [], "none"),
    "gelu_tanh": ("gelu", [], "tanh"),
}
OF_PLANS = (None, *get_args(PlanActivation))
# Known by name, as it is no torch class.
_PADS_SAME = "timm.layers.conv2d_same.Conv2dSame"
_IN_TORCH: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "relu6": lambda x: x.clamp_(0, 6),
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


def form_of(module: Any, x: Tensor, int8: bool) -> Form:
    """Name the fastest form of a layer with the weights that it has, for inputs of that shape."""
    weight = module.weight
    outputs, inputs = weight.shape[0], weight[0].numel()
    form = _dense_form(module, x, int8)
    densest = _DENSEST[form][weight.dtype]
    densest -= _PER_OUTPUT_AND_INPUT * (1 / outputs + 1 / inputs)
    # Below 16 channels a row of inputs is shorter than a vector.
    lists = isinstance(module, nn.Linear) or (module.groups == 1 and module.in_channels >= 16)
    return "lists" if lists and count_kept(weight) < densest * weight.numel() else form


def in_form(
    form: Form, module: Any, x: Tensor, activation: Activation | None
) -> Callable[[Tensor], Tensor]:
    """Make a layer and its activation ready in a form other than "dense"."""
    known = _POINTWISE if form == "packed" else OF_PLANS
    if activation not in known:
        return then(in_form(form, module, x, None), activation)
    weight, bias = module.weight, module.bias
    linear = isinstance(module, nn.Linear)
    if form == "packed":
        how = _POINTWISE[activation]
        return _packed(weight, bias, how) if linear else _packed_convolution(module, x, how)
    own = cast("PlanActivation | None", activation)
    if form in ("winograd", "int8_winograd"):
        int8 = form == "int8_winograd"
        return ops.WinogradPlan(weight, bias, padding=module.padding, activation=own, int8=int8)
    if form == "int8" and (linear or _is_linear(module)):
        plan = ops.Int8LinearPlan([weight.flatten(1)], [bias], [own])
        return plan if linear else lambda x: plan(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    if linear:
        return ops.SparseLayerPlan(weight, bias, activation=own)
    of_pixels = ops.Int8ConvolutionPlan if form == "int8" else ops.SparseLayerPlan
    return of_pixels(
        weight,
        bias,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        activation=own,
    )


def depthwise(module: Any, activation: Activation | None) -> Callable[[Tensor], Tensor]:
    """Make a convolution of each channel by itself, and its activation, ready."""
    if activation not in OF_PLANS:
        return then(depthwise(module, None), activation)
    plan = ops.DepthwisePlan(
        module.weight,
        module.bias,
        stride=module.stride,
        padding="same" if pads_same(module) else module.padding,
        dilation=module.dilation,
        activation=cast("PlanActivation | None", activation),
    )
    return lambda x: plan(x) if x.dim() == 4 else plan(x.unsqueeze(0)).squeeze(0)


def pads_same(module: nn.Module) -> bool:
    """Tell whether a convolution pads as TensorFlow's "same" does."""
    return class_name(module) == _PADS_SAME


def then(
    layer: Callable[[Tensor], Tensor], activation: Activation | None
) -> Callable[[Tensor], Tensor]:
    """Give a layer followed by an activation in torch."""
    if activation is None:
        return layer
    activate = _IN_TORCH[activation]
    return lambda x: activate(layer(x))


def _dense_form(module: Any, x: Tensor, int8: bool) -> Form:
    """Name the fastest form with all weights."""
    packs = torch.backends.mkldnn.is_available() and (  # type: ignore[no-untyped-call]
        x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    rows = x.numel() // max(1, x.shape[-1] if isinstance(module, nn.Linear) else x.shape[1])
    form: Form = "packed" if packs and rows >= _FEWEST_ROWS else "dense"
    int8 = int8 and 0 < module.weight[0].numel() <= MOST_INPUTS
    whole = isinstance(module, nn.Linear) or module.groups == 1
    if int8 and whole and rows >= _FEWEST_ROWS:
        form = "int8"
    if isinstance(module, nn.Linear):
        return form
    if x.dim() != 4:
        return "dense"
    if module.kernel_size != (3, 3) or module.stride != (1, 1) or module.dilation != (1, 1):
        return form
    if module.groups != 1 or min(module.in_channels, module.out_channels) < _FEWEST_CHANNELS:
        return form
    tiles, padding = len(x), cast("tuple[int, int]", module.padding)
    for size, pad in zip(x.shape[2:], padding, strict=True):
        tiles *= (size + 2 * pad - 1) // 2
    if tiles < _FEWEST_TILES:
        return form
    return "int8_winograd" if int8 else "winograd"


def _is_linear(convolution: Any) -> bool:
    """Tell whether a convolution is a linear layer over pixels as they come."""
    ones: bool = convolution.kernel_size == convolution.stride == (1, 1)
    return ones and convolution.padding == (0, 0)


def _packed(
    weight: Tensor, bias: Tensor | None, activation: Pointwise
) -> Callable[[Tensor], Tensor]:
    """Pack a linear layer's weights once, as `torch.compile` does for a CPU."""
    ready = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, ready, bias, *activation)


def _packed_convolution(
    module: Any, x: Tensor, activation: Pointwise
) -> Callable[[Tensor], Tensor]:
    """Do the same for a convolution, and inputs of about that shape."""
    how = (module.padding, module.stride, module.dilation, module.groups)
    ready = torch.ops.mkldnn._reorder_convolution_weight(module.weight, *how, x.shape)
    convolve = torch.ops.mkldnn._convolution_pointwise
    return lambda x: convolve(x, ready, module.bias, *how, *activation)
