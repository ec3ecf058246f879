"""Fuse activations into the layers before them, which saves a pass over their outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from lc_engine.backbone.consumers import fusable_pairs
from lc_engine.backbone.recognize import activation_of, is_max_pool
from lc_engine.backbone.trace import alike

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lc_engine.backbone.consumers import Named
    from lc_engine.backbone.model_copy import ModelCopy


def apply(copy: ModelCopy) -> bool:
    """Fuse each activation that is the only consumer of a layer's output into that layer, in place.

    A ReLU whose only consumer is a max pooling is fused into the pooling instead:
    max(relu(x)) == relu(max(x)), on fewer elements. Sets `copy.activations`, which max_pool and
    fast_layers apply. If the model then returns other numbers (a layer's output is used in two
    places), it is put back.

    Returns:
        Whether activations were fused.
    """
    model = copy.model
    pairs = [(owner, activation) for activation, owner in _owners(copy).items()]
    if not pairs:
        return False
    with torch.no_grad():
        expected = copy.outputs()
        handles = []
        for (_, owner), (name, activation) in pairs:
            model.set_submodule(name, nn.Identity())
            handles.append(owner.register_forward_hook(_applying(activation)))
        try:
            fused = copy.outputs()
        except Exception:  # a forward that reads an activation's attributes
            fused = []
        finally:
            for handle in handles:
                handle.remove()
    if alike(fused, expected):
        copy.activations = {owner: activation for (_, owner), (_, activation) in pairs}
        return True
    for _, (name, activation) in pairs:
        model.set_submodule(name, activation)
    return False


def _owners(copy: ModelCopy) -> dict[Named, Named]:
    """Return the module that can apply each activation: the layer before or the pooling after."""
    owners: dict[Named, Named] = {}
    for producer, consumer in fusable_pairs(copy):
        if is_max_pool(consumer[1]):
            if activation_of(producer[1]) == "relu":
                owners[producer] = consumer
        elif producer[1] in copy.layers and activation_of(consumer[1]) is not None:
            owners.setdefault(consumer, producer)
    return owners


def _applying(activation: nn.Module) -> Callable[..., Tensor]:
    def hook(layer: nn.Module, args: object, output: Tensor) -> Tensor:
        found: Tensor = activation(output)
        return found

    return hook
