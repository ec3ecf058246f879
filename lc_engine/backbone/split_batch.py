"""Split batches into parts that suit a processor: images by caches, texts by their lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lc_engine._util.length_cuts import length_cuts
from lc_engine.backbone import tuning

if TYPE_CHECKING:
    from lc_engine.data.fields import Fields, Inputs


class Part(NamedTuple):
    """Rows that go through a model together.

    Attributes:
        inputs: (n, …).
        rows: (n,) their numbers in the batch.
    """

    inputs: Inputs
    rows: Tensor


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


def split_inputs(inputs: Inputs, dtype: torch.dtype, images: int | None = None) -> list[Part]:
    """Split inputs of any kind; see `split_batch`.

    Rows with an attention mask are sorted by length, and each part is cut to its longest row.
    """
    if isinstance(inputs, Tensor):
        parts = split_batch(inputs, dtype, images)
        numbers = torch.split(torch.arange(len(inputs)), [len(part) for part in parts])
        return [Part(part, rows) for part, rows in zip(parts, numbers, strict=True)]
    inputs = inputs.to(dtype)
    lengths = inputs.lengths
    if lengths is None:
        return _equal_parts(inputs, images)
    host = lengths.cpu().numpy().astype(np.int64)
    order = np.argsort(-host, kind="stable")
    kind = "cpu" if inputs.device.type == "cpu" else "gpu"
    budget, overhead = tuning.TOKEN_BUDGET[kind], tuning.FORWARD_COST[kind]
    parts_of_text = []
    for cut in length_cuts(np.maximum(host[order], 1), budget, overhead):
        rows = torch.from_numpy(order[cut])
        longest = max(1, int(host[order[cut]].max()))
        parts_of_text.append(Part(inputs[rows.to(inputs.device)].cut_to(longest), rows))
    return parts_of_text or [Part(inputs, torch.arange(len(inputs)))]


def _equal_parts(inputs: Fields, images: int | None) -> list[Part]:
    """Split named inputs by the images among them; leave others whole."""
    pictures = [value for value in inputs.values.values() if value.dim() == 4]
    count = max(1, len(inputs))
    if pictures and len(inputs):
        count = min(len(part) for part in split_batch(pictures[0], pictures[0].dtype, images)[:1])
    rows = torch.split(torch.arange(len(inputs)), count)
    return [Part(inputs[int(part[0]) : int(part[-1]) + 1], part) for part in rows if len(part)] or [
        Part(inputs, torch.arange(0))
    ]
