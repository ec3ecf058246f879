"""Precision: what the sub-models of a model of pictures compute in."""

from __future__ import annotations

from typing import Final, Literal

import torch

from lc_engine.ops import contract

Precision = Literal["auto", "float32", "bfloat16", "int8"]
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
# What "auto" chooses from: 8 bits change a ranking more, so they are for those who ask for them.
MEASURED: Final[tuple[Precision, ...]] = ("float32", "bfloat16")


def check_int8(device: torch.device) -> None:
    """Check that layers can be multiplied in 8 bits there; say once if that is slow.

    Raises:
        ValueError: the device is no CPU, or the C++ core was not built.
    """
    if device.type != "cpu":
        raise ValueError(f'dtype: "int8" is for a CPU, and the model is on {device}: use "auto"')
    core = contract.native()
    if core is None:
        raise ValueError(
            'dtype: "int8" needs the C++ core, which was not built: reinstall with a compiler, or '
            'use "auto"'
        )
    if not core.multiplies_int8():
        contract.warn_once(
            'lc_engine: dtype="int8" on a processor (or an LC_ENGINE_ISA) without AVX512-VNNI is '
            'slower than float32: use "auto".'
        )


def beside_int8() -> torch.dtype:
    """Give the dtype of all that is not multiplied in 8 bits, on a CPU."""
    fast = contract.multiplies_bfloat16(torch.device("cpu"))
    return torch.bfloat16 if fast else torch.float32
