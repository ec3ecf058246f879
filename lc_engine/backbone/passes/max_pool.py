"""Run max poolings through `ops.max_pool`, with the ReLU that was fused into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lc_engine import ops
from lc_engine.backbone import tuning
from lc_engine.backbone.recognize import KERNEL_DTYPES, is_max_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from lc_engine.backbone.model_copy import ModelCopy
    from lc_engine.ops.layers.pixels import Pair


def apply(copy: ModelCopy) -> bool:
    """Replace the forward of the max poolings that `is_max_pool` accepts.

    Returns:
        Whether there are any.
    """
    found = [module for module in copy.model.modules() if is_max_pool(module)]
    for module in found:
        module.forward = _pooling(module, module.forward, relu=module in copy.activations)
    return bool(found)


def _pooling(
    module: Any, torch_forward: Callable[[Tensor], Tensor], *, relu: bool
) -> Callable[..., Tensor]:
    window = [_pair(size) for size in (module.kernel_size, module.stride, module.padding)]

    def forward(input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if _fits(input):
            return ops.max_pool(input, *window, relu=relu)
        pooled = torch_forward(input)
        return pooled.relu_() if relu else pooled

    return forward


def _fits(x: Tensor) -> bool:
    return (
        x.dim() == 4
        and x.device.type == "cpu"
        and x.dtype in KERNEL_DTYPES
        and x.shape[1] % tuning.MAX_POOL_CHANNELS == 0
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _pair(size: int | Sequence[int]) -> Pair:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
