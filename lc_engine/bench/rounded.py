"""The loops' bfloat16: weights are masked in float32, and computed with in a copy."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lc_engine.data.fields import Fields
from lc_engine.models.classifier import call

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from lc_engine.data.fields import Inputs
    from lc_engine.naive import Features


def twin_of(model: nn.Module) -> nn.Module:
    """Return a copy of a model in bfloat16, channels-last."""
    return copy.deepcopy(model).bfloat16().to(memory_format=torch.channels_last)


def round_weights(own: nn.Module, twin: nn.Module) -> nn.Module:
    """Round masked weights into a copy: sixteen bits tell too few of them apart to mask there."""
    with torch.no_grad():
        for weight, whole in zip(twin.parameters(), own.parameters(), strict=True):
            weight.copy_(whole)
    return twin


def rounded(inputs: Inputs) -> Any:
    """Return inputs in bfloat16, images channels-last; integers as they are."""
    if isinstance(inputs, Fields):
        return inputs.to(torch.bfloat16)
    if not inputs.is_floating_point():
        return inputs
    memory = torch.channels_last if inputs.dim() == 4 else torch.contiguous_format
    return inputs.bfloat16().contiguous(memory_format=memory)


def rounded_features(extractor: nn.Module) -> tuple[nn.Module, Features]:
    """Return a copy of an extractor to mask, and what computes its features in bfloat16."""
    own, twin = copy.deepcopy(extractor), twin_of(extractor)

    def features(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        round_weights(own, twin)
        with torch.no_grad():
            return torch.cat([call(twin, rounded(inputs)).float() for inputs, _ in batches])

    return own, features
