"""Cast a copy to the dtype and memory layout that it computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lc_engine.backbone.recognize import is_depthwise

if TYPE_CHECKING:
    from lc_engine.backbone.model_copy import ModelCopy


def apply(copy: ModelCopy) -> bool:
    """Cast a copy to `copy.dtype`, images to channels last; depthwise weights stay float32.

    Buffers are first put back as they were before the forwards over the example.

    Returns:
        True.
    """
    model = copy.model
    copy.state.put_back_buffers()
    depthwise = [
        (parameter, parameter.detach().float())
        for module in copy.layers
        if is_depthwise(module)
        for parameter in module.parameters(recurse=False)
    ]
    model.to(copy.dtype)
    for parameter, values in depthwise:
        parameter.data = values
    if isinstance(copy.example, Tensor) and copy.example.dim() == 4:
        # Convolutions on a CPU are twice as fast with channels last.
        model.to(memory_format=torch.channels_last)
    return True
