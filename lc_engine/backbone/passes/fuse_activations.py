"""Fusing: activations into the layers before them, norms and layers into the layers after them.

A pass over the outputs of its own costs an activation more than its arithmetic, and what a layer
writes for the next one alone need not leave the caches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from lc_engine.backbone.trace import alike, class_name, hooked, sole_takers, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import Tensor

    from lc_engine.backbone.trace import Named

Activation = Literal["relu", "relu6", "gelu", "gelu_tanh"]

# Known by name, as theirs are no torch classes: their forward is torch's function of that kind.
_OTHERS: dict[str, Activation] = {
    "timm.layers.activations.GELU": "gelu",
    "timm.layers.activations.GELUTanh": "gelu_tanh",
    "transformers.activations.GELUActivation": "gelu",
}


def activation_of(module: nn.Module) -> Activation | None:
    """Name the activation that a module is; None for all others."""
    forward = type(module).forward
    if forward is nn.ReLU.forward:
        return "relu"
    if isinstance(module, nn.ReLU6) and forward is nn.ReLU6.forward:
        return "relu6"
    if isinstance(module, nn.GELU) and forward is nn.GELU.forward:
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    return _OTHERS.get(class_name(module))


def fuse_activations(
    model: nn.Module,
    example: Tensor,
    layers: Collection[nn.Module],
    tapped: str | None = None,
) -> dict[nn.Module, nn.Module]:
    """Take activations that alone get a layer's output out of a model, in place.

    A ReLU whose output a max pooling alone gets is applied by that pooling, which leaves fewer
    numbers to look at.

    What follows what is seen in one forward. The model afterwards gives the same numbers once the
    layers apply their activations; where a second forward shows that it would not (a model that
    uses a layer's output in two places), the model is put back and nothing is fused.

    Args:
        model: in evaluation mode.
        example: (N, …) inputs of the model's dtype, a few rows.
        layers: that may get an activation; `nn.MaxPool2d` among them.
        tapped: name of a module whose inputs and outputs stay what they are. Those of modules with
            hooks do too.

    Returns:
        By layer, the activation that it has to apply to its outputs.
    """
    # By activation, who applies it: a pooling that follows sooner than the layer before.
    applies: dict[Named, Named] = {}
    for one, next_one in _free_pairs(model, example, tapped):
        if next_one[1] in layers and isinstance(next_one[1], nn.MaxPool2d):
            if activation_of(one[1]) == "relu":
                applies[one] = next_one
        elif one[1] in layers and activation_of(next_one[1]) is not None:
            applies.setdefault(next_one, one)
    pairs = [(layer, activation) for activation, layer in applies.items()]
    if not pairs:
        return {}
    with torch.no_grad():
        expected = tensors_of(model(example))
        handles = []
        for (_, layer), (name, activation) in pairs:
            model.set_submodule(name, nn.Identity())
            handles.append(layer.register_forward_hook(_applying(activation)))
        try:
            fused = tensors_of(model(example))
        except Exception:  # a forward that asks an activation for what it is
            fused = []
        finally:
            for handle in handles:
                handle.remove()
    if alike(fused, expected):
        return {layer: activation for (_, layer), (_, activation) in pairs}
    for _, (name, activation) in pairs:
        model.set_submodule(name, activation)
    return {}


def fuse_chains(
    model: nn.Module,
    example: Tensor,
    layers: Collection[nn.Module],
    activations: Mapping[nn.Module, nn.Module],
    tapped: str | None = None,
) -> dict[nn.Module, nn.Module]:
    """Find layer norms and linear layers whose output goes into one other linear layer only.

    The output of a linear layer may be activated before. The layer after can then do the work of
    both while the first passes its input on: a second forward shows that the model gives the same
    numbers so, else none is given. The model stays as it is. A linear layer may follow a norm and
    be followed by another linear layer, and no more than that.

    Args:
        model: in evaluation mode, after `fuse_activations`.
        example: (N, …) inputs of the model's dtype, a few rows.
        layers: of which chains are made.
        activations: what `fuse_activations` gave.
        tapped: as `fuse_activations` has it.

    Returns:
        By second layer, the first one: a norm (`is_row_norm`) or a linear layer.
    """
    chains: dict[nn.Module, nn.Module] = {}
    for (_, first), (_, second) in _free_pairs(model, example, tapped):
        if not isinstance(second, nn.Linear) or second not in layers:
            continue
        if is_row_norm(first):
            if first.normalized_shape == (second.in_features,):
                chains[second] = first
        elif isinstance(first, nn.Linear) and first in layers:
            after_norm_only = first not in chains or is_row_norm(chains[first])
            if after_norm_only and second not in chains.values():
                chains[second] = first
    if not chains:
        return {}
    own = {layer: layer.forward for layer in (*activations, *chains, *chains.values())}
    try:
        for layer, activation in activations.items():
            layer.forward = _in_turn(own[layer], activation)
        with torch.no_grad():
            expected = tensors_of(model(example))
            for second, first in chains.items():
                second.forward = _in_turn(first.forward, second.forward)
                first.forward = passed_on
            try:
                fused = tensors_of(model(example))
            except Exception:  # a forward that asks for the width between the two
                fused = []
    finally:
        for layer, forward in own.items():
            layer.forward = forward
    return chains if alike(fused, expected) else {}


def is_row_norm(module: nn.Module) -> bool:
    """Tell whether a module is a layer norm, as torch computes it."""
    as_torch = type(module).forward is nn.LayerNorm.forward
    return as_torch or class_name(module) == "timm.layers.norm.LayerNorm"


def _in_turn(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: second(first(x))


def passed_on(x: Tensor) -> Tensor:
    """Be the forward of a layer whose work another one does."""
    return x


def _free_pairs(model: nn.Module, example: Tensor, tapped: str | None) -> list[tuple[Named, Named]]:
    """Give the pairs of `sole_takers` with no border between them that must see what passes."""
    borders = [name for name, module in model.named_modules() if hooked(module)]
    if tapped is not None:
        borders.append(tapped)
    return [
        (giver, taker)
        for giver, taker in sole_takers(model, example)
        if not any(_parted(giver[0], taker[0], border) for border in borders)
    ]


def _applying(activation: nn.Module) -> Callable[..., Tensor]:
    def hook(layer: nn.Module, args: object, output: Tensor) -> Tensor:
        found: Tensor = activation(output)
        return found

    return hook


def _parted(layer: str, activation: str, border: str) -> bool:
    """Tell whether what lies between the two goes into the module `border`, or comes out of it."""
    inside = [not border or f"{name}.".startswith(f"{border}.") for name in (layer, activation)]
    return inside[0] != inside[1] or border in (layer, activation)
