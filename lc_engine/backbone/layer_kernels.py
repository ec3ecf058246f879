"""Kernels of a layer on a CPU: which there are, and which is the fastest for its weights.

A dense product takes as long at 2 % of its weights as at all of them.

- sparse: `ops.SparseLayerPlan`, for layers of which few weights are left.
- winograd: `ops.WinogradPlan`, for 3 × 3 convolutions: 16 products in place of 36.
- int8, int8_winograd: `ops.Int8LinearPlan`, `ops.Int8ConvolutionPlan`, `ops.WinogradPlan`.
- packed: oneDNN with weights packed in advance.
- dense: torch's forward.

Depthwise convolutions have a kernel of their own, `ops.DepthwisePlan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from lc_engine import ops
from lc_engine.backbone import onednn, tuning
from lc_engine.backbone.recognize import pads_same
from lc_engine.ops.layers.int8_linear import MOST_INPUTS
from lc_engine.ops.layers.pixels import PlanActivation
from lc_engine.ops.layers.sparse_layer import count_kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.backbone.recognize import Activation

    Layer = Callable[[Tensor], Tensor]

Kernel = Literal["dense", "packed", "winograd", "int8", "int8_winograd", "sparse"]
# Activations that plans apply as they write their outputs.
PLAN_ACTIVATIONS = (None, *get_args(PlanActivation))
_IN_TORCH: dict[Activation, Layer] = {
    "relu": torch.relu_,
    "relu6": lambda x: x.clamp_(0, 6),
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": lambda x: functional.silu(x, inplace=True),
    "hardswish": lambda x: functional.hardswish(x, inplace=True),
}


class Choice(NamedTuple):
    """What of a layer's kernel does not depend on its weights.

    Attributes:
        dense: the fastest kernel whose time does not depend on their density.
        few: weights below which lists of them are faster; 0 where there are no lists.
    """

    dense: Kernel
    few: float

    def kernel(self, weight: Tensor) -> Kernel:
        """Return the fastest kernel for these weights."""
        return "sparse" if self.few and count_kept(weight) < self.few else self.dense


def choice(module: Any, x: Tensor, int8: bool) -> Choice:
    """Return the choice for a layer.

    Args:
        module: a linear layer or convolution.
        x: an input of the shape and dtype that it gets.
        int8: whether products may be of int8.
    """
    kernel, weight = _fastest_dense(module, x, int8), module.weight
    if not isinstance(module, nn.Linear) and (
        module.groups != 1 or module.in_channels < tuning.SPARSE_CHANNELS
    ):
        return Choice(kernel, 0)
    outputs, inputs = weight.shape[0], weight[0].numel()
    below = tuning.SPARSE_BELOW[tuning.kind()][kernel][str(weight.dtype).removeprefix("torch.")]
    below -= tuning.SPARSE_OVERHEAD * (1 / outputs + 1 / inputs)
    return Choice(kernel, max(0.0, below * weight.numel()))


def fastest_kernel(module: Any, x: Tensor, int8: bool) -> Kernel:
    """Return the fastest kernel of a layer with its present weights; see `choice`."""
    return choice(module, x, int8).kernel(module.weight)


def build(kernel: Kernel, module: Any, x: Tensor, activation: Activation | None) -> Layer:
    """Return a layer followed by its activation, with a kernel other than "dense"."""
    weight, bias = module.weight, module.bias
    linear = isinstance(module, nn.Linear)
    if kernel == "packed" and not linear:
        return onednn.packed_convolution(module, x, activation)
    known = onednn.FUSED if kernel == "packed" else PLAN_ACTIVATIONS
    if activation not in known:
        return followed_by(build(kernel, module, x, None), activation)
    if kernel == "packed":
        return onednn.packed_linear(weight, bias, activation)
    own = cast("PlanActivation | None", activation)
    if kernel in ("winograd", "int8_winograd"):
        int8 = kernel == "int8_winograd"
        return ops.WinogradPlan(weight, bias, padding=module.padding, activation=own, int8=int8)
    if kernel == "int8" and (linear or _is_pointwise(module)):
        plan = ops.Int8LinearPlan([weight.flatten(1)], [bias], [own])
        return plan if linear else lambda x: plan(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    if linear:
        return ops.SparseLayerPlan(weight, bias, activation=own)
    convolution = ops.Int8ConvolutionPlan if kernel == "int8" else ops.SparseLayerPlan
    return convolution(
        weight,
        bias,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        activation=own,
    )


def build_depthwise(module: Any, activation: Activation | None) -> Layer:
    """Return a depthwise convolution followed by its activation."""
    if activation not in PLAN_ACTIVATIONS:
        return followed_by(build_depthwise(module, None), activation)
    plan = ops.DepthwisePlan(
        module.weight,
        module.bias,
        stride=module.stride,
        padding="same" if pads_same(module) else module.padding,
        dilation=module.dilation,
        activation=cast("PlanActivation | None", activation),
    )
    return lambda x: plan(x) if x.dim() == 4 else plan(x.unsqueeze(0)).squeeze(0)


def pad_same(module: Any, x: Tensor) -> Tensor:
    """Return the inputs (N, C, H, W) of a convolution that pads as TensorFlow does, padded.

    For ⌈inputs / stride⌉ outputs along an axis; an odd zero is below and to the right.
    """
    zeros: list[int] = []
    for size, taps, step, spacing in zip(
        x.shape[:-3:-1],
        module.kernel_size[::-1],
        module.stride[::-1],
        module.dilation[::-1],
        strict=True,
    ):
        total = max(0, (-(-size // step) - 1) * step + spacing * (taps - 1) + 1 - size)
        zeros += [total // 2, total - total // 2]
    return functional.pad(x, zeros)


def followed_by(layer: Layer, activation: Activation | None) -> Layer:
    """Return a layer followed by an activation in torch."""
    if activation is None:
        return layer
    activate = _IN_TORCH[activation]
    return lambda x: activate(layer(x))


def _fastest_dense(module: Any, x: Tensor, int8: bool) -> Kernel:
    """Return the fastest kernel that does not depend on the density."""
    packs = onednn.multiplies(x.dtype)
    rows = x.numel() // max(1, x.shape[-1] if isinstance(module, nn.Linear) else x.shape[1])
    many = rows >= tuning.PACKED_ROWS
    kernel: Kernel = "packed" if packs and many else "dense"
    int8 = int8 and 0 < module.weight[0].numel() <= MOST_INPUTS
    if int8 and many and (isinstance(module, nn.Linear) or module.groups == 1):
        kernel = "int8"
    if isinstance(module, nn.Linear):
        return kernel
    if x.dim() != 4:
        return "dense"
    if (int8 or x.dtype in tuning.OWN_DTYPES[tuning.kind()]) and _suits_winograd(module, x):
        return "int8_winograd" if int8 else "winograd"
    return kernel


def _suits_winograd(module: Any, x: Tensor) -> bool:
    """Return whether Winograd's method takes a convolution, and is worth its transforms."""
    if module.kernel_size != (3, 3) or module.stride != (1, 1) or module.dilation != (1, 1):
        return False
    channels = min(module.in_channels, module.out_channels)
    if module.groups != 1 or channels < tuning.WINOGRAD_CHANNELS:
        return False
    tiles = len(x)
    for size, pad in zip(x.shape[2:], module.padding, strict=True):
        tiles *= (size + 2 * pad - 1) // 2
    return tiles >= tuning.WINOGRAD_TILES


def _is_pointwise(convolution: Any) -> bool:
    """Return whether a convolution is a linear layer over pixels."""
    ones: bool = convolution.kernel_size == convolution.stride == (1, 1)
    return ones and convolution.padding == (0, 0)
