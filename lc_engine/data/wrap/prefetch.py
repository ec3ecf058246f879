"""Prefetch batches to a GPU: the next one is copied while the current one is computed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.data.batch import Batch


def prefetch_to_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy the inputs of batches to a device, one batch ahead, through pinned memory.

    On a CPU, and where the inputs are not tensors (texts), batches are passed on as they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        started = _start(batch, device, stream)
        if ahead is not None:
            yield _finish(*ahead, device)
        ahead = started
    if ahead is not None:
        yield _finish(*ahead, device)


def _start(
    batch: Batch, device: torch.device, stream: torch.cuda.Stream
) -> tuple[Batch, torch.cuda.Event]:
    if isinstance(batch.inputs, Tensor) and batch.inputs.device.type == "cpu":
        with torch.cuda.stream(stream):
            # torch's caching allocator holds the pinned memory until the copy is done.
            copied = batch.inputs.pin_memory().to(device, non_blocking=True)
        batch = replace(batch, inputs=copied)
    return batch, stream.record_event()


def _finish(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    if isinstance(batch.inputs, Tensor) and batch.inputs.is_cuda:
        batch.inputs.record_stream(current)
    return batch
