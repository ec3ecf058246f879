"""Batches on their way to a GPU: the next one is copied while this one is computed with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.data.batch import Batch


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Bring the inputs of batches to a device, one batch ahead, through pinned memory.

    On a CPU, and where inputs are no tensor (texts), batches come as they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        started = _start(batch, device, stream)
        if ahead is not None:
            yield _arrived(*ahead, device)
        ahead = started
    if ahead is not None:
        yield _arrived(*ahead, device)


def _start(
    batch: Batch, device: torch.device, stream: torch.cuda.Stream
) -> tuple[Batch, torch.cuda.Event]:
    if isinstance(batch.inputs, Tensor) and batch.inputs.device.type == "cpu":
        with torch.cuda.stream(stream):
            # torch keeps the pinned memory until the copy is done, and then for the next batch.
            there = batch.inputs.pin_memory().to(device, non_blocking=True)
        batch = replace(batch, inputs=there)
    return batch, stream.record_event()


def _arrived(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    if isinstance(batch.inputs, Tensor) and batch.inputs.is_cuda:
        batch.inputs.record_stream(current)
    return batch
