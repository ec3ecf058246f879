"""Split batches of images into parts that suit a CPU's caches."""

from __future__ import annotations

import torch
from torch import Tensor

from lc_engine.backbone import tuning


def split_batch(inputs: Tensor, dtype: torch.dtype, images: int | None = None) -> list[Tensor]:
    """Split a batch of images on a CPU into parts, channels last; leave other inputs whole.

    Args:
        inputs: (N, …).
        dtype: of floating-point inputs afterwards.
        images: of 224 × 224 pixels in a part; None for as many as suit convolutions.
    """
    if inputs.is_floating_point():
        inputs = inputs.to(dtype)
    if inputs.dim() != 4 or inputs.device.type != "cpu" or not len(inputs):
        return [inputs]
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    pixels = 224 * 224 * (tuning.IMAGES_OF_CONVOLUTIONS if images is None else images)
    return list(torch.split(inputs, max(1, pixels // max(1, inputs[0, 0].numel()))))
