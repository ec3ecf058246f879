"""Compile cases for their targets and report registers, spills and instructions."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lc_engine.kernels import config
from lc_engine.kernels.aot.cases import KERNELS
from lc_engine.kernels.aot.keys import key
from lc_engine.kernels.aot.signature import signature
from lc_engine.kernels.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lc_engine.kernels.aot.cases import Case
    from lc_engine.kernels.targets import Target

# The wide matrix instruction of each target.
TENSOR_OP = {
    "sm_80": r"\bmma\.sync\.aligned\.m16n8k",
    "sm_90": r"\bwgmma\.mma_async",
    "sm_100": r"\btcgen05\.mma",
    "sm_120": r"\bmma\.sync\.aligned\.m16n8k",
    "gfx942": r"\bv_mfma_",
    "gfx950": r"\bv_mfma_",
}
# Loads of two or more elements by one instruction, or directly into shared memory.
WIDE_LOAD = {
    "cuda": r"\bcp\.async\.c[ga]\.|\bld\.global(?:\.\w+)*\.v[248]",
    "hip": r"\b(?:global|buffer)_load_dwordx[234]",
}
# A product in Triton's IR, and the precision that it is multiplied in where it is not "ieee".
PRODUCT = re.compile(r"\btt\.dot [^:]*?(?:inputPrecision = (\w+))? :")
# What a product that asks for no precision gets here. Triton's own default differs: TF32 on NVIDIA
# and on gfx942, exact on gfx950, so that one that forgot to ask would be seen on some targets only.
UNASKED = "bf16x3"
INSTRUCTION = {"cuda": r"^\s+[a-z@{].*;", "hip": r"^\s+[a-z@][^:\n]*$"}


@dataclass(frozen=True)
class Report:
    """Resources of a compiled case; one row of the committed table.

    Attributes:
        name: of the case.
        key: of the case, by `keys.key`.
        registers: per thread (AMD: vector registers).
        spills: bytes of stack per thread; AMD: spilled registers, vector and scalar.
        shared: bytes of shared memory per program.
        tensor_ops: wide matrix instructions in the program text.
        wide_loads: vector or asynchronous loads in the program text.
        instructions: all instructions of the program text (PTX or amdgcn).
        unasked: matrix products of another precision than the case's `PRECISION`.
    """

    name: str
    key: str
    registers: int
    spills: int
    shared: int
    tensor_ops: int
    wide_loads: int
    instructions: int
    unasked: int


def compile_case(case: Case) -> Report:
    """Compile one case and read the result.

    Raises:
        triton.CompilationError: the kernel does not compile for the target.
    """
    types, attributes = signature(case)
    device = TARGETS[case.target]
    target = gpu_target(device)
    compiled = triton.compile(
        ASTSource(KERNELS[case.kernel], types, case.constants, attributes),
        target=target,
        options={"num_warps": case.warps, "num_stages": case.stages, **config.OPTIONS},
    )
    text = compiled.asm["amdgcn" if device.amd else "ptx"]
    registers, spills = _resources_amd(text) if device.amd else _resources(compiled.asm["cubin"])
    return Report(
        case.name,
        key(case),
        registers,
        spills,
        compiled.metadata.shared,
        tensor_ops=len(re.findall(TENSOR_OP[case.target], text)),
        wide_loads=len(re.findall(WIDE_LOAD[target.backend], text)),
        instructions=len(re.findall(INSTRUCTION[target.backend], text, re.MULTILINE)),
        unasked=unasked(compiled.asm["ttir"], case.constants.get("PRECISION")),
    )


def gpu_target(device: Target) -> GPUTarget:
    """Return a target as Triton names it."""
    arch = device.arch if device.amd else int(device.arch.removeprefix("sm_"))
    return GPUTarget("hip" if device.amd else "cuda", arch, device.warp_size)


def unasked(ttir: str, precision: str | None) -> int:
    """Return how many matrix products of a program in Triton's IR have another precision."""
    return sum((found or "ieee") != precision for found in PRODUCT.findall(ttir))


def compile_all(cases: Iterable[Case], workers: int) -> list[Report]:
    """Compile cases on several processes; reports are in the order of the cases."""
    # A forked child would inherit the locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _set_default_precision) as pool:
        return pool.map(compile_case, cases, chunksize=1)


def _set_default_precision() -> None:
    os.environ["TRITON_F32_DEFAULT"] = UNASKED


def _resources(cubin: bytes) -> tuple[int, int]:
    """Return registers and stack bytes of a cubin: without a driver, only the tool knows them."""
    from triton.backends import nvidia

    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump reported no resource usage: {usage!r}")
    return int(found[1]), int(found[2])


def _resources_amd(text: str) -> tuple[int, int]:
    counts = {name: int(value) for name, value in re.findall(r"\.(\w+_count):\s+(\d+)", text)}
    return counts["vgpr_count"], counts["vgpr_spill_count"] + counts["sgpr_spill_count"]
