"""What the processor multiplies: the one place that asks for it."""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import torch

from lc_engine.ops import contract


class CpuFeatures(NamedTuple):
    """Instructions that products on a CPU may use.

    Attributes:
        amx_bf16: torch's own products of bfloat16 run on AMX tiles.
        amx_int8: torch's own products of int8 do.
        avx512_bf16: the C++ core multiplies bfloat16 two at a time.
        avx512_vnni: the C++ core multiplies int8 four at a time.
    """

    amx_bf16: bool
    amx_int8: bool
    avx512_bf16: bool
    avx512_vnni: bool


def cpu_features() -> CpuFeatures:
    """Return what this process may use of the processor.

    LC_ENGINE_ISA names the best set to use, so it rules out AMX, which is none of the C++ core's;
    ONEDNN_MAX_CPU_ISA is oneDNN's own limit on torch's products.
    """
    core = contract.native()
    # Every processor with tiles multiplies both kinds of numbers on them.
    tiles = not os.environ.get("LC_ENGINE_ISA") and _library_has_tiles()
    return CpuFeatures(
        amx_bf16=tiles,
        amx_int8=tiles,
        avx512_bf16=core is not None and core.cpu_isa() == "avx512_bf16",
        avx512_vnni=core is not None and bool(core.multiplies_int8()),
    )


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively, and so faster than float32.

    By its instructions and not by a timing, so that all processes of a job agree: a GPU that
    supports bfloat16, or a CPU with AVX512-BF16 or AMX.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if contract.native() is None:  # all products are torch's
        return bool(torch.cpu._is_avx512_bf16_supported()) or cpu_features().amx_bf16
    return cpu_features().avx512_bf16 or cpu_features().amx_bf16


@functools.cache
def _library_has_tiles() -> bool:
    """Return whether torch's products use AMX tiles; oneDNN too decides it once."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    limit = limit.upper()  # as AVX512_CORE_BF16 or AVX512_CORE_AMX; oneDNN ignores other words
    if limit.startswith(("SSE", "AVX")) and "AMX" not in limit:
        return False
    # Tiles must be asked for: a kernel or a container may refuse them.
    return bool(torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx())
