"""Dtypes that the sub-models of an image model compute in."""

from __future__ import annotations

from typing import Final, Literal

import torch

from lc_engine.backbone import tuning
from lc_engine.ops import contract
from lc_engine.ops.processor import multiplies_bfloat16

Precision = Literal["auto", "float32", "bfloat16", "int8"]
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def auto_dtype(device: torch.device) -> Precision:
    """Return what "auto" is on a device: bfloat16 where it multiplies that natively, else float32.

    int8 changes a ranking more, so it is for those who ask for it.
    """
    return "bfloat16" if multiplies_bfloat16(device) else "float32"


def check_int8(device: torch.device) -> None:
    """Check that a device multiplies in int8; warn once if it is slow.

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
    elif tuning.kind() == "tiles":
        contract.warn_once(
            'lc_engine: dtype="int8" on a processor with AMX: layers multiply faster in bfloat16 '
            "there and do; only transformer blocks of up to "
            f"{tuning.INT8_BLOCK_WIDTH['tiles']:.0f} features multiply in int8."
        )


def unquantized_dtype() -> torch.dtype:
    """Return the dtype of all that is not int8 in a copy that multiplies in int8."""
    return DTYPES[auto_dtype(torch.device("cpu"))]
