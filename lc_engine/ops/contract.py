"""The choice of an operator's backend, and of the dtype in which it computes."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any, Literal, get_args

import torch

from lc_engine.kernels.interpreter import interpreting

Backend = Literal["auto", "reference", "native", "triton"]

_FAST_DTYPES = (torch.float32, torch.bfloat16)
_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class FallbackWarning(UserWarning):
    """A slower implementation runs than the machine could run; the text says which and why."""


@functools.cache
def native() -> Any:
    """Return the compiled module `lc_engine._native`, or None where it was not built."""
    try:
        return importlib.import_module("lc_engine._native")
    except ImportError:
        return None


@functools.cache
def warn_once(message: str) -> None:
    """Warn of a fallback, once for each text."""
    warnings.warn(message, FallbackWarning, stacklevel=5)


def resolve_backend(
    operator: str, backend: Backend, device: torch.device, dtype: torch.dtype
) -> str:
    """Choose the implementation that runs, or say why the one asked for cannot.

    "auto" is native on a CPU and Triton on a GPU for float32 and bfloat16, else the plain-torch
    reference. A fallback from a fast path that the machine should have is said once, by name.

    Raises:
        ValueError: the backend named cannot run these tensors.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {get_args(Backend)}, got {backend!r}")
    if backend == "reference":
        return backend
    if backend == "auto":
        if device.type == "cuda" and dtype in _KERNEL_DTYPES:
            return "triton"
        if device.type == "cpu" and dtype in _FAST_DTYPES:
            if native() is not None:
                return "native"
            warn_once(
                f"lc_engine.{operator}: the C++ core was not built, so the slower plain-torch "
                "reference runs instead. Install a C++ compiler and reinstall lc_engine."
            )
        return "reference"
    if backend == "native":
        if native() is None:
            raise ValueError(
                "backend='native': the C++ core was not built; reinstall with a compiler"
            )
        if device.type != "cpu" or dtype not in _FAST_DTYPES:
            raise ValueError(
                f"backend='native' takes float32 or bfloat16 on a CPU, got {dtype} on {device}"
            )
    elif not (device.type == "cuda" or interpreting()) or dtype not in _KERNEL_DTYPES:
        raise ValueError(
            "backend='triton' takes float32, bfloat16 or float16 on a GPU (or any device with "
            f"TRITON_INTERPRET=1 set before the start), got {dtype} on {device}"
        )
    return backend


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a reference accumulates: float64 stays, all others use float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
