"""Folding batch norms into the convolutions before them, in a model that is only evaluated.

    norm(conv(x)) = (γ/σ)·(w ∗ x) + (b − μ)·γ/σ + β

The factor γ/σ is kept apart from the weights, because masks compare the weights as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Relative to the largest number in the output; folding alone stays below 1e-5.
_TOLERANCE = 1e-3


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
        expected = _output(model(example))
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
            folded = _output(model(example))
        except Exception:  # a forward that asks a norm module for its numbers
            folded = []
        for name, weight in weights.items():
            weight.copy_(kept[name])
    if _alike(folded, expected):
        return factors
    for conv, old_bias, norm_name, norm in undo:
        conv.register_parameter("bias", old_bias)
        model.set_submodule(norm_name, norm)
    return {}


def _pairs(model: nn.Module, example: Tensor) -> list[tuple[tuple[str, Any], tuple[str, Any]]]:
    """Find each convolution and the norm that alone takes its output, seen in one forward."""
    producer: dict[int, tuple[str, nn.Module]] = {}
    consumers: dict[int, list[tuple[str, nn.Module]]] = {}
    calls: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no two tensors have one id

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls[id(module)] = calls.get(id(module), 0) + 1
            for value in args:
                if isinstance(value, Tensor):
                    alive.append(value)
                    consumers.setdefault(id(value), []).append((name, module))
            if isinstance(output, Tensor):
                alive.append(output)
                producer[id(output)] = (name, module)

        return module.register_forward_hook(hook)

    watched = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _NORMS) or not any(module.children())
    ]
    handles = [watch(name, module) for name, module in watched]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    pairs = []
    for value, (conv_name, conv) in producer.items():
        followers = consumers.get(value, [])
        if not isinstance(conv, _CONVOLUTIONS) or len(followers) != 1:
            continue
        norm_name, norm = followers[0]
        once = calls[id(conv)] == calls[id(norm)] == 1
        if once and isinstance(norm, _NORMS) and norm.running_var is not None and norm_name:
            pairs.append(((conv_name, conv), (norm_name, norm)))
    return pairs


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


def _output(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    values = value.values() if hasattr(value, "values") else value
    return [part for part in values if isinstance(part, Tensor)]


def _alike(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(
        a.shape == b.shape and bool((a - b).abs().max() <= _TOLERANCE * (b.abs().max() + 1e-30))
        for a, b in zip(found, expected, strict=True)
    )
