"""The device that a model is loaded to."""

from __future__ import annotations

import torch


def resolve_device(device: torch.device | str | None) -> torch.device:
    """Return a device by its name; "auto" is CUDA where there is any, else the CPU, None the CPU.

    Raises:
        RuntimeError: torch knows no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device("cpu" if device is None else device)
