"""Sparse forwards: layers of a working copy that leave out the weights that a mask has zeroed.

A dense product takes as long at 2 % of its weights as at all of them. On a CPU, layers with few
weights left go through lists of these (`ops.SparseLayerPlan`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lc_engine import ops
from lc_engine.ops import contract
from lc_engine.ops.sparse_layer import count_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Density below which lists beat oneDNN's dense product, as measured on Zen 4: a dense product in
# bfloat16 takes half the time of one in float32, lists two thirds. What a list costs whatever its
# length, gathering inputs and writing outputs, weighs more the fewer outputs and inputs there are.
_DENSEST = {torch.float32: 0.7, torch.bfloat16: 0.55}
_PER_OUTPUT_AND_INPUT = 8.0


class SparseForwards:
    """Changes the forward of linear layers and convolutions to the faster of two, per sub-model.

    Args:
        modules: with the weights that are masked, of a copy: they are changed for good. Those of
            other kinds stay as they are.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._plans: dict[nn.Module, ops.SparseLayerPlan | None] = {}
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
                self._plans[module] = _plan(module)
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


def _plan(module: Any) -> ops.SparseLayerPlan | None:
    weight, bias = module.weight, module.bias
    outputs, inputs = weight.shape[0], weight[0].numel()
    densest = _DENSEST[weight.dtype] - _PER_OUTPUT_AND_INPUT * (1 / outputs + 1 / inputs)
    if count_kept(weight) >= densest * weight.numel():
        return None
    if isinstance(module, nn.Linear):
        return ops.SparseLayerPlan(weight, bias)
    return ops.SparseLayerPlan(
        weight, bias, stride=module.stride, padding=module.padding, dilation=module.dilation
    )
