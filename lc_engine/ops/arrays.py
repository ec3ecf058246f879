"""Host tensors as the NumPy arrays that the C++ core takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def host_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a host tensor's memory in C order, copied if it must be."""
    return host_view(tensor.contiguous())


def host_view(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a host tensor's memory with its strides.

    NumPy has no bfloat16: those tensors become uint16, which C++ reads as bfloat16.
    """
    tensor = tensor.detach()
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    return bits.numpy()


def host_floats(tensor: Tensor | None) -> np.ndarray[Any, Any] | None:
    """Return a host tensor as float32; None stays None."""
    return None if tensor is None else host_array(tensor.to(torch.float32))
