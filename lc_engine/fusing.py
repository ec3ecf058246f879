"""Fusing activations into the layers before them, which apply them while they write their outputs.

A pass over the outputs of its own costs an activation more than its arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from lc_engine.watching import alike, sole_takers, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from torch import Tensor

    from lc_engine.watching import Named

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
    return _OTHERS.get(f"{type(module).__module__}.{type(module).__qualname__}")


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
    borders = [name for name, module in model.named_modules() if _hooked(module)]
    if tapped is not None:
        borders.append(tapped)
    # By activation, who applies it: a pooling that follows sooner than the layer before.
    applies: dict[Named, Named] = {}
    for one, next_one in sole_takers(model, example):
        if any(_parted(one[0], next_one[0], border) for border in borders):
            continue
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


def _applying(activation: nn.Module) -> Callable[..., Tensor]:
    def hook(layer: nn.Module, args: object, output: Tensor) -> Tensor:
        found: Tensor = activation(output)
        return found

    return hook


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _parted(layer: str, activation: str, border: str) -> bool:
    """Tell whether what lies between the two goes into the module `border`, or comes out of it."""
    inside = [not border or f"{name}.".startswith(f"{border}.") for name in (layer, activation)]
    return inside[0] != inside[1] or border in (layer, activation)
