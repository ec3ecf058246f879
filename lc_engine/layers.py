"""Layers: those of a working copy, each in the form that is fastest for the weights it has.

A dense product takes as long at 2 % of its weights as at all of them. On a CPU, layers with few
weights left go through lists of these (`ops.SparseLayerPlan`), and 3 × 3 convolutions with more
through fewer multiplications (`ops.WinogradPlan`). What is left is torch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from lc_engine import ops
from lc_engine.ops import contract
from lc_engine.ops.sparse_layer import count_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Density below which lists beat a dense product, as measured on Zen 4: oneDNN's in bfloat16 takes
# half the time of one in float32, lists two thirds; Winograd's takes 0.6 of oneDNN's. What a list
# costs whatever its length, gathering inputs and writing outputs, weighs more the fewer outputs
# and inputs there are.
_DENSEST = {torch.float32: 0.7, torch.bfloat16: 0.55}
_DENSEST_BESIDE_WINOGRAD = {torch.float32: 0.42, torch.bfloat16: 0.33}
_PER_OUTPUT_AND_INPUT = 8.0
# Below these channels, and tiles of 2 × 2 outputs, transforms cost more than products they save.
_FEWEST_CHANNELS = 32
_FEWEST_TILES = 64


class FastLayers:
    """Changes the forward of linear layers and convolutions to the fastest of three, per sub-model.

    Args:
        modules: with the weights that are masked, of a copy: they are changed for good. Those of
            other kinds stay as they are.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._plans: dict[nn.Module, Callable[[Tensor], Any] | None] = {}
        if contract.native() is not None:
            for module in filter(_fits, modules):
                module.forward = self._choosing(module, module.forward)

    def rewritten(self) -> None:
        """Say that the modules have other weights than before."""
        self._plans.clear()

    def _choosing(self, module: nn.Module, dense: Callable[..., Any]) -> Callable[..., Any]:
        def forward(input: Tensor) -> Any:  # noqa: A002 - some models name it, as torch does
            # One row per sample gives lists nothing to spread their cost over.
            if input.dim() < 3 or input.dtype != module.weight.dtype:
                return dense(input)
            if module not in self._plans:
                self._plans[module] = _plan(module, input)
            plan = self._plans[module]
            return dense(input) if plan is None else plan(input)

        return forward


def _fits(module: nn.Module) -> bool:
    forward, weight = type(module).forward, getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.device.type != "cpu":
        return False
    if weight.dtype not in _DENSEST:
        return False
    if forward is nn.Linear.forward:
        return True
    # Below 16 channels a row of inputs is shorter than a vector.
    return (
        isinstance(module, nn.Conv2d)
        and forward is nn.Conv2d.forward
        and module.groups == 1
        and module.in_channels >= 16
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _plan(module: Any, x: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Choose the form of a layer for inputs of that shape; None is torch's."""
    weight, bias = module.weight, module.bias
    outputs, inputs = weight.shape[0], weight[0].numel()
    winograd = _suits_winograd(module, x)
    densest = (_DENSEST_BESIDE_WINOGRAD if winograd else _DENSEST)[weight.dtype]
    densest -= _PER_OUTPUT_AND_INPUT * (1 / outputs + 1 / inputs)
    if count_kept(weight) >= densest * weight.numel():
        return ops.WinogradPlan(weight, bias, padding=module.padding) if winograd else None
    if isinstance(module, nn.Linear):
        return ops.SparseLayerPlan(weight, bias)
    return ops.SparseLayerPlan(
        weight, bias, stride=module.stride, padding=module.padding, dilation=module.dilation
    )


def _suits_winograd(module: Any, x: Tensor) -> bool:
    if not isinstance(module, nn.Conv2d) or x.dim() != 4:
        return False
    if module.kernel_size != (3, 3) or module.stride != (1, 1) or module.dilation != (1, 1):
        return False
    tiles, padding = len(x), cast("tuple[int, int]", module.padding)
    for size, pad in zip(x.shape[2:], padding, strict=True):
        tiles *= (size + 2 * pad - 1) // 2
    channels = min(module.in_channels, module.out_channels)
    return channels >= _FEWEST_CHANNELS and tiles >= _FEWEST_TILES
