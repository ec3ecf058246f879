"""Fold each batch norm into the convolution before it.

    norm(conv(x)) = (γ/σ)·(w ∗ x) + (b − μ)·γ/σ + β

The factor γ/σ is kept too, because masks compare the weights as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lc_engine.backbone.consumers import NORMS, sole_consumers
from lc_engine.backbone.trace import alike

if TYPE_CHECKING:
    from lc_engine.backbone.consumers import Named
    from lc_engine.backbone.model_copy import ModelCopy
    from lc_engine.data.fields import Inputs

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def apply(copy: ModelCopy) -> bool:
    """Fold each batch norm that is the only consumer of a float32 convolution, in place.

    Sets `copy.factors`. If a forward then returns other numbers, up to rounding (a convolution's
    output is used in two places), the model is put back.

    Returns:
        Whether batch norms were folded.
    """
    model, example = copy.model, copy.example
    pairs = _pairs(model, example)
    if not pairs:
        return False
    undo: list[tuple[Any, nn.Parameter | None, Tensor, str, nn.Module]] = []
    factors: dict[str, Tensor] = {}
    with torch.no_grad():
        expected = copy.outputs()
        for (conv_name, conv), (norm_name, norm) in pairs:
            factor, bias = _factor_and_bias(conv, norm)
            factor = factor.reshape(-1, *[1] * (conv.weight.dim() - 1))
            undo.append((conv, conv.bias, conv.weight.clone(), norm_name, norm))
            factors[f"{conv_name}.weight"] = factor
            conv.weight.mul_(factor)
            conv.bias = nn.Parameter(bias, requires_grad=False)
            model.set_submodule(norm_name, _without_norm(norm))
        try:
            folded = copy.outputs()
        except Exception:  # a forward that reads a norm's attributes
            folded = []
        if alike(folded, expected):
            copy.factors = factors
            return True
        for conv, old_bias, weight, norm_name, norm in reversed(undo):  # two may share a weight
            conv.weight.copy_(weight)
            conv.register_parameter("bias", old_bias)
            model.set_submodule(norm_name, norm)
    return False


def _pairs(model: nn.Module, example: Inputs) -> list[tuple[Named, Named]]:
    """Return each convolution with the batch norm that is its only consumer."""
    if not any(isinstance(module, NORMS) for module in model.modules()):
        return []
    return [
        (conv, norm)
        for conv, norm in sole_consumers(model, example)
        if isinstance(conv[1], _CONVOLUTIONS)
        and conv[1].weight.dtype == torch.float32
        and isinstance(norm[1], NORMS)
        and norm[1].running_var is not None
        and norm[0]
    ]


def _factor_and_bias(conv: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Return γ/σ (E,) and the new bias (E,), computed in float64: each is rounded once."""
    std = (norm.running_var.double() + norm.eps).sqrt()
    gamma = torch.ones_like(std) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(std) if norm.bias is None else norm.bias.double()
    factor = gamma / std
    bias = 0.0 if conv.bias is None else conv.bias.double()
    dtype = conv.weight.dtype
    return factor.to(dtype), ((bias - norm.running_mean.double()) * factor + beta).to(dtype)


def _without_norm(norm: nn.Module) -> nn.Module:
    """Return what a norm module computes besides the norm: timm's applies an activation too."""
    rest = list(norm.children())
    return nn.Sequential(*rest) if rest else nn.Identity()
