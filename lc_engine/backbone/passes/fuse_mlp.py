"""Fuse layer norms and linear layers into the linear layers after them, for int8 kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lc_engine.backbone.consumers import fusable_pairs
from lc_engine.backbone.recognize import is_layer_norm
from lc_engine.backbone.trace import alike

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lc_engine.backbone.model_copy import ModelCopy


def apply(copy: ModelCopy) -> bool:
    """Find layer norms and linear layers whose only consumer is a linear layer.

    An activation may be fused into the first linear layer. A chain has at most a norm and two
    linear layers. Sets `copy.producers`, which fast_layers applies; the model is not changed. A
    forward in which each consumer does the work of both must return the same numbers.

    Returns:
        Whether there are such chains.
    """
    if not copy.int8 or copy.dropout:
        return False
    producers = _producers(copy)
    if producers and _same_when_fused(copy, producers):
        copy.producers = producers
    return bool(copy.producers)


def pass_through(x: Tensor) -> Tensor:
    """Return the input: the forward of a module whose work its consumer does."""
    return x


def _producers(copy: ModelCopy) -> dict[nn.Module, nn.Module]:
    producers: dict[nn.Module, nn.Module] = {}
    for (_, first), (_, second) in fusable_pairs(copy):
        if not isinstance(second, nn.Linear) or second not in copy.layers:
            continue
        if is_layer_norm(first):
            if first.normalized_shape == (second.in_features,):
                producers[second] = first
        elif isinstance(first, nn.Linear) and first in copy.layers:
            after_norm_only = first not in producers or is_layer_norm(producers[first])
            if after_norm_only and second not in producers.values():
                producers[second] = first
    return producers


def _same_when_fused(copy: ModelCopy, producers: dict[nn.Module, nn.Module]) -> bool:
    modules = (*copy.activations, *producers, *producers.values())
    own = {module: module.forward for module in modules}
    try:
        for module, activation in copy.activations.items():
            module.forward = _composed(own[module], activation)
        with torch.no_grad():
            expected = copy.outputs()
            for second, first in producers.items():
                second.forward = _composed(first.forward, second.forward)
                first.forward = pass_through
            try:
                fused = copy.outputs()
            except Exception:  # a forward that reads the width between the two
                fused = []
    finally:
        for module, forward in own.items():
            module.forward = forward
    return alike(fused, expected)


def _composed(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: second(first(x))
