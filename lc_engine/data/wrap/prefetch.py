"""Prefetch batches to a GPU: the next ones are read and copied while one is computed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lc_engine._util.read_ahead import one_late, read_ahead
from lc_engine._util.transfer import upload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.data.batch import Batch, Source

# Batches that wait on the device: one may take longer to read than to compute, not two in a row.
_AHEAD = 2


def may_read_in_thread(source: Source) -> bool:
    """Return whether a source may be read in another thread than this one: with workers it is."""
    return getattr(source, "num_workers", None) != 0


def prefetch_to_device(
    batches: Iterator[Batch], device: torch.device, *, in_thread: bool = True
) -> Iterator[Batch]:
    """Read batches ahead, and copy their inputs to a device through pinned memory.

    Up to `_AHEAD` batches wait there. On a CPU, whose sources decode ahead by themselves, batches
    are passed on as they are; inputs that are not tensors (texts) are not copied.

    Args:
        batches: of a source.
        device: the model's.
        in_thread: whether they are read in a thread, else one batch ahead in this one.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        return _start(batch, device, stream)

    started = read_ahead(batches, start, _AHEAD) if in_thread else one_late(map(start, batches))
    for batch, copied in started:
        yield _finish(batch, copied, device)


def _start(
    batch: Batch, device: torch.device, stream: torch.cuda.Stream
) -> tuple[Batch, torch.cuda.Event]:
    if isinstance(batch.inputs, Tensor) and batch.inputs.device.type == "cpu":
        with torch.cuda.stream(stream):
            batch = replace(batch, inputs=upload(batch.inputs, device))
    return batch, stream.record_event()


def _finish(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    if isinstance(batch.inputs, Tensor) and batch.inputs.is_cuda:
        batch.inputs.record_stream(current)
    return batch
