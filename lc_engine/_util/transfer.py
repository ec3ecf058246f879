"""Copies between the host and a device for which the host does not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, copied on the current stream.

    From memory that is not pinned, a copy would wait for all that was launched before it.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    # torch's caching allocator holds the pinned memory until the copy is done.
    return tensor.pin_memory().to(device, non_blocking=True)


def download(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors of one device to the host; return a function that waits for that."""
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
    if device is None:
        found = [tensor.cpu() for tensor in tensors]
        return lambda: found
    copies = [
        torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
            tensor, non_blocking=True
        )
        for tensor in tensors
    ]
    done = torch.cuda.current_stream(device).record_event()

    def wait() -> list[Tensor]:
        done.synchronize()
        return copies

    return wait
