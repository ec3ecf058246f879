"""The device that the benchmarks of this folder run on."""

from __future__ import annotations

import platform
import sys

import torch


def chosen_device(*, rehearse: bool) -> torch.device | None:
    """Return the GPU, or the host for a rehearsal; None, said on stderr, where there is no GPU."""
    if rehearse:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA or ROCm device; there is none here", file=sys.stderr)
        return None
    return torch.device("cuda", torch.cuda.current_device())


def device_name(device: torch.device) -> str:
    """Return the name of a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def wait(device: torch.device) -> None:
    """Wait for all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
