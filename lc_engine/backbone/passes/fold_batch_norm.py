"""Folding batch norms into the convolutions before them, in a model that is only evaluated.

    norm(conv(x)) = (γ/σ)·(w ∗ x) + (b − μ)·γ/σ + β

The factor γ/σ is kept apart from the weights, because masks compare the weights as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lc_engine.backbone.trace import NORMS, alike, sole_takers, tensors_of

if TYPE_CHECKING:
    from lc_engine.backbone.trace import Named

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norms(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """Take the batch norms that follow a convolution out of a model, in place.

    What follows what is seen in one forward. The model afterwards gives the same numbers up to
    rounding once its weights are multiplied by the factors that are returned; where a second
    forward shows that it does not (a model that uses a convolution's output in two places), the
    model is put back and nothing is folded.

    Args:
        model: in evaluation mode, float32 or float64; its weights themselves are not changed.
        example: (N, …) inputs, a few rows.

    Returns:
        By the parameter name of each convolution's weight (E, …), its factor (E, 1, …).
    """
    pairs = _pairs(model, example)
    undo: list[tuple[nn.Module, nn.Parameter | None, str, nn.Module]] = []
    factors: dict[str, Tensor] = {}
    with torch.no_grad():
        expected = tensors_of(model(example))
        for (conv_name, conv), (norm_name, norm) in pairs:
            factor, bias = _factor_and_bias(conv, norm)
            undo.append((conv, conv.bias, norm_name, norm))
            factors[f"{conv_name}.weight"] = factor.reshape(-1, *[1] * (conv.weight.dim() - 1))
            conv.bias = nn.Parameter(bias, requires_grad=False)
            model.set_submodule(norm_name, _what_is_left(norm))
        if not factors:
            return factors
        weights = {name: model.get_parameter(name) for name in factors}
        kept = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.mul_(factors[name])
        try:
            folded = tensors_of(model(example))
        except Exception:  # a forward that asks a norm module for its numbers
            folded = []
        for name, weight in weights.items():
            weight.copy_(kept[name])
    if alike(folded, expected):
        return factors
    for conv, old_bias, norm_name, norm in undo:
        conv.register_parameter("bias", old_bias)
        model.set_submodule(norm_name, norm)
    return {}


def _pairs(model: nn.Module, example: Tensor) -> list[tuple[Named, Named]]:
    """Find each convolution and the norm that alone takes its output."""
    return [
        (conv, norm)
        for conv, norm in sole_takers(model, example)
        if isinstance(conv[1], _CONVOLUTIONS)
        and isinstance(norm[1], NORMS)
        and norm[1].running_var is not None
        and norm[0]
    ]


def _factor_and_bias(conv: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Give γ/σ and the new bias; in float64, so that they carry one rounding only."""
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    gamma = torch.ones_like(deviation) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(deviation) if norm.bias is None else norm.bias.double()
    factor = gamma / deviation
    bias = 0.0 if conv.bias is None else conv.bias.double()
    dtype = conv.weight.dtype
    return factor.to(dtype), ((bias - norm.running_mean.double()) * factor + beta).to(dtype)


def _what_is_left(norm: nn.Module) -> nn.Module:
    """Keep what a norm module holds besides the norm: timm's applies an activation too."""
    rest = list(norm.children())
    return nn.Sequential(*rest) if rest else nn.Identity()
