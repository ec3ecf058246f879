"""Kinds of modules that passes and kernels know, recognized by class and forward."""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from lc_engine.ops import contract

Activation = Literal["relu", "relu6", "gelu", "gelu_tanh", "silu", "hardswish"]

KERNEL_DTYPES: Final = (torch.float32, torch.bfloat16)
_PLAIN_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
}
# Classes outside torch, by name, so that their packages need not be imported.
_ACTIVATIONS: dict[str, Activation] = {
    "timm.layers.activations.GELU": "gelu",
    "timm.layers.activations.GELUTanh": "gelu_tanh",
    "transformers.activations.GELUActivation": "gelu",
    "transformers.activations.SiLUActivation": "silu",
}
_LAYER_NORM = "timm.layers.norm.LayerNorm"
_SAME_CONVOLUTION = "timm.layers.conv2d_same.Conv2dSame"


def has_vectors() -> bool:
    """Return whether the C++ core uses vectors; its baseline was not measured against torch."""
    core = contract.native()
    return core is not None and core.cpu_isa() != "baseline"


def activation_of(module: nn.Module) -> Activation | None:
    """Return the activation that a module computes; None if it computes something else."""
    forward = type(module).forward
    for plain, name in _PLAIN_ACTIVATIONS.items():
        if forward is plain.forward:
            return name
    if isinstance(module, nn.ReLU6) and forward is nn.ReLU6.forward:
        return "relu6"
    if isinstance(module, nn.GELU) and forward is nn.GELU.forward:
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    return _ACTIVATIONS.get(_class_name(module))


def is_layer_norm(module: nn.Module) -> bool:
    """Return whether a module is a layer norm as torch computes it."""
    return type(module).forward is nn.LayerNorm.forward or _class_name(module) == _LAYER_NORM


def is_max_pool(module: Any) -> bool:
    """Return whether `ops.max_pool` computes what a module computes."""
    return (
        has_vectors()
        and isinstance(module, nn.MaxPool2d)
        and type(module).forward is nn.MaxPool2d.forward
        and module.dilation in (1, (1, 1), [1, 1])
        and not module.ceil_mode
        and not module.return_indices
    )


def is_depthwise(module: Any) -> bool:
    """Return whether `ops.DepthwisePlan` computes what a module computes.

    Such a module's weights stay float32, whatever its inputs are.
    """
    if not has_vectors() or not isinstance(module, nn.Conv2d):
        return False
    per_channel = module.groups == module.in_channels == module.out_channels > 1
    return per_channel and (_is_plain_convolution(module) or pads_same(module))


def pads_same(module: nn.Module) -> bool:
    """Return whether a convolution pads as TensorFlow's "same" does."""
    return _class_name(module) == _SAME_CONVOLUTION


def has_kernel(module: nn.Module, dtype: torch.dtype) -> bool:
    """Return whether a layer has kernels of its own once its weights have a dtype."""
    forward, weight = type(module).forward, getattr(module, "weight", None)
    if contract.native() is None or dtype not in KERNEL_DTYPES:
        return False
    if not isinstance(weight, Tensor) or weight.device.type != "cpu":
        return False
    if forward is nn.Linear.forward or is_depthwise(module):
        return True
    return isinstance(module, nn.Conv2d) and (_is_plain_convolution(module) or pads_same(module))


def _is_plain_convolution(module: nn.Conv2d) -> bool:
    return (
        type(module).forward is nn.Conv2d.forward
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
