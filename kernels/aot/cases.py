"""Compile every configuration that can run for a target, without a device, and read what came out.

    python -m lc_engine.kernels.aot --write tests/kernels/aot_table.csv

A kernel that spills, misses the tensor cores or takes more shared memory than its target has is
found here, on any machine, and not on the day it meets a GPU. Nothing here runs when scoring.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lc_engine.kernels import (
    apply_thresholds,
    config,
    linear_confidence,
    masked_linear,
    mlp_confidence,
    path_sum,
    prototype_confidence,
    token_nll,
)
from lc_engine.kernels.dtypes import TRITON_DTYPES
from lc_engine.kernels.layer import GELU, NONE, RELU
from lc_engine.kernels.saliency import GIVEN, MAGNITUDE, RANDOM, WHOLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
SOURCES = {"magnitude": MAGNITUDE.value, "given": GIVEN.value, "random": RANDOM.value}
# The wide matrix instruction of each target.
TENSOR_OP = {
    "sm_80": r"\bmma\.sync\.aligned\.m16n8k",
    "sm_90": r"\bwgmma\.mma_async",
    "sm_100": r"\btcgen05\.mma",
    "gfx942": r"\bv_mfma_",
}
# Loads of two or more elements by one instruction, or past the registers into shared memory.
WIDE_LOAD = {
    "cuda": r"\bcp\.async\.c[ga]\.|\bld\.global(?:\.\w+)*\.v[248]",
    "hip": r"\b(?:global|buffer)_load_dwordx[234]",
}
# Scalars of a launch that a kernel is compiled for as multiples of 16, as Triton does at run time.
ALIGNED = {"D", "H", "E", "stride_xk", "stride_hk"}
LONG = {"seed", "stride_xk", "stride_hk"}
FLOAT = {"scale", "min_distance", "min_norm"}
POINTERS = {
    **dict.fromkeys(("s_ptr", "s1_ptr", "t_ptr", "b_ptr", "b1_ptr", "norm_ptr"), "*fp32"),
    **dict.fromkeys(("lc_ptr", "loss_ptr", "path_ptr", "nll_ptr", "entropy_ptr"), "*fp32"),
    **dict.fromkeys(("y_ptr", "table_ptr"), "*i64"),
    **dict.fromkeys(("omega_ptr", "parts_ptr"), "*fp64"),
}


@dataclass(frozen=True)
class Case:
    """One configuration of one kernel on one target.

    Attributes:
        kernel: name of the operator or helper.
        variant: what sets this configuration apart, readable.
        target: key of `config.TARGETS`.
        dtype: of features and weights.
        constants: the kernel's compile-time arguments.
        warps: warps of a program.
        stages: steps whose loads are in flight.
        product: whether the kernel multiplies matrices.
    """

    kernel: str
    variant: str
    target: str
    dtype: torch.dtype
    constants: dict[str, Any]
    warps: int
    stages: int
    product: bool

    @property
    def name(self) -> str:
        """A name without spaces, unique among the cases."""
        return f"{self.kernel}-{self.variant}-{NAMES[self.dtype]}-{self.target}"


@dataclass(frozen=True)
class Report:
    """What a compiled kernel takes; one row of the committed table.

    Attributes:
        name: that of the case.
        registers: per thread (AMD: vector registers).
        spills: bytes of stack per thread; AMD: spilled registers, vector and scalar.
        shared: bytes of shared memory per program.
        tensor_ops: wide matrix instructions in the program text.
        wide_loads: vector or asynchronous loads in the program text.
        instructions: all instructions of the program text (PTX or amdgcn).
    """

    name: str
    registers: int
    spills: int
    shared: int
    tensor_ops: int
    wide_loads: int
    instructions: int


KERNELS = {
    "linear_confidence": linear_confidence._linear_confidence_kernel,
    "premask": linear_confidence._premask_kernel,
    "prototype_confidence": prototype_confidence._prototype_confidence_kernel,
    "mlp_confidence": mlp_confidence._mlp_confidence_kernel,
    "masked_linear": masked_linear._masked_linear_kernel,
    "token_nll": token_nll._token_nll_kernel,
    "apply_thresholds": apply_thresholds._apply_thresholds_kernel,
    "path_sum": path_sum._path_sum_kernel,
}


def cases(target: str) -> Iterator[Case]:
    """Yield every configuration that `config` can choose on a target."""
    for dtype in (torch.bfloat16, torch.float32):
        yield from _linear(target, dtype)
        yield from _prototype(target, dtype)
        yield from _mlp(target, dtype)
        yield from _layers(target, dtype)
        for source, value in SOURCES.items():
            constants = {
                "SALIENCY": value,
                "ALIGNED": True,
                "DTYPE": TRITON_DTYPES[dtype],
                "BLOCK": apply_thresholds.BLOCK,
            }
            warps = apply_thresholds.NUM_WARPS
            yield Case("apply_thresholds", source, target, dtype, constants, warps, 1, False)
    # Half precision runs the tiles of bfloat16.
    half = ("premasked-K50-C1000", "expanded-K50-C1000")
    yield from (case for case in _linear(target, torch.float16) if case.variant in half)
    constants = {"BLOCK_N": path_sum.BLOCK_N}
    yield Case("path_sum", "all", target, torch.float32, constants, path_sum.NUM_WARPS, 1, False)


def _linear(target: str, dtype: torch.dtype) -> Iterator[Case]:
    device = config.TARGETS[target]
    common = {
        "HAS_LABELS": True,
        "RETURN_PATH": True,
        "COMPUTE": TRITON_DTYPES[dtype],
        "PRECISION": config.precision(device, dtype),
    }
    shapes = {f"K{k}-C{c}": (k, c) for k in (50, 2) for c in (1000, 10)}
    # Formulation, saliency, whether D is whole tiles, whether programs share the path.
    variants = {
        "premasked": (True, "magnitude", True, False),
        "expanded": (False, "magnitude", True, False),
        "expanded-given": (False, "given", True, False),
        "expanded-random": (False, "random", True, False),
        "premasked-ragged": (True, "magnitude", False, False),
        "expanded-ragged": (False, "magnitude", False, False),
        "premasked-split": (True, "magnitude", True, True),
    }
    seen = set()
    for shape, (sub_models, classes) in shapes.items():
        for variant, (premasked, source, even, split) in variants.items():
            tile = config.linear(
                device,
                dtype.itemsize,
                classes,
                sub_models,
                premasked=premasked,
                scored=source != "magnitude",
            )
            if (tile, variant) in seen:
                continue
            seen.add((tile, variant))
            constants = common | {
                "PREMASKED": premasked,
                "SALIENCY": SOURCES[source],
                "EVEN_D": even,
                "SPLIT": split,
                "BLOCK_N": tile.rows,
                "BLOCK_C": tile.classes,
                "BLOCK_K": tile.sub_models,
                "BLOCK_D": tile.depth,
            }
            yield Case(
                "linear_confidence", f"{variant}-{shape}", target, dtype, constants,
                tile.warps, tile.stages, True,
            )  # fmt: skip
    for source, value in SOURCES.items():
        constants = {
            "NESTED": True,
            "SALIENCY": value,
            "BLOCK_K": 8,
            "BLOCK": linear_confidence.PREMASK_BLOCK,
        }
        yield Case(
            "premask", source, target, dtype, constants, linear_confidence.PREMASK_WARPS, 1, False
        )


def _prototype(target: str, dtype: torch.dtype) -> Iterator[Case]:
    device = config.TARGETS[target]
    for logit, value in prototype_confidence.LOGITS.items():
        tile = config.prototype(device, dtype.itemsize, logit == "cosine")
        constants = {
            "HAS_LABELS": True,
            "RETURN_PATH": True,
            "SPLIT": False,
            "LOGIT": value,
            "EVEN_D": True,
            "COMPUTE": TRITON_DTYPES[dtype],
            "PRECISION": config.precision(device, dtype),
            "BLOCK_N": tile.rows,
            "BLOCK_C": tile.classes,
            "BLOCK_D": tile.depth,
        }
        yield Case(
            "prototype_confidence", logit, target, dtype, constants,
            tile.warps, tile.stages, logit == "cosine",
        )  # fmt: skip


def _mlp(target: str, dtype: torch.dtype) -> Iterator[Case]:
    device = config.TARGETS[target]
    common = {
        "SALIENCY": SOURCES["magnitude"],
        "COMPUTE": TRITON_DTYPES[dtype],
        "PRECISION": config.precision(device, dtype),
        "ACTIVATION": RELU.value,
    }
    fused = config.mlp(device, dtype.itemsize)
    widest = config.mlp_width(device, dtype.itemsize, plain=True)
    beside = config.mlp_width(device, dtype.itemsize, plain=False)
    variants = {f"relu-H{width}": (True, width, {}) for width in (64, 128, 256) if width <= widest}
    if beside:
        gelu = {"ACTIVATION": GELU.value}
        variants |= {
            "gelu": (True, beside, gelu),
            "gelu-random": (True, beside, gelu | {"SALIENCY": SOURCES["random"]}),
            "gelu-given": (True, beside, gelu | {"SALIENCY": SOURCES["given"]}),
        }
    variants |= {
        "wide": (False, 16, {}),
        "wide-random": (False, 16, {"SALIENCY": SOURCES["random"]}),
        "wide-given": (False, 16, {"SALIENCY": SOURCES["given"]}),
    }
    for variant, (on_chip, width, extra) in variants.items():
        scored = "SALIENCY" in extra
        tile = fused if on_chip else config.product(device, dtype.itemsize, scored=scored)
        constants = common | {
            "FUSED": on_chip,
            "HAS_LABELS": True,
            "RETURN_PATH": True,
            "SPLIT": False,
            "BLOCK_N": tile.rows,
            "BLOCK_C": tile.classes,
            "BLOCK_D": tile.depth,
            "BLOCK_H": width,
        } | extra  # fmt: skip
        yield Case(
            "mlp_confidence", variant, target, dtype, constants, tile.warps, tile.stages, True
        )


def _layers(target: str, dtype: torch.dtype) -> Iterator[Case]:
    device = config.TARGETS[target]
    common = {"COMPUTE": TRITON_DTYPES[dtype], "PRECISION": config.precision(device, dtype)}
    # The activation takes registers, so the dearest stands for each source; the plain layer and
    # ReLU are what transformers and MLPs have.
    variants = {source: (source, GELU.value) for source in SOURCES}
    variants |= {"magnitude-plain": ("magnitude", NONE.value)}
    variants |= {"magnitude-relu": ("magnitude", RELU.value)}
    for variant, (source, activation) in variants.items():
        tile = config.product(device, dtype.itemsize, scored=source != "magnitude")
        constants = common | {
            "ACTIVATION": activation,
            "SALIENCY": SOURCES[source],
            "BLOCK_N": tile.rows,
            "BLOCK_E": tile.classes,
            "BLOCK_D": tile.depth,
        }
        yield Case(
            "masked_linear", variant, target, dtype, constants, tile.warps, tile.stages, True
        )
    for source, value in (SOURCES | {"whole": WHOLE.value}).items():
        for entropy in (False, True):
            scored = source in ("given", "random")
            tile = config.vocabulary(device, dtype.itemsize, scored=scored, entropy=entropy)
            constants = common | {
                "ENTROPY": entropy,
                "SALIENCY": value,
                "BLOCK_N": tile.rows,
                "BLOCK_V": tile.classes,
                "BLOCK_D": tile.depth,
            }
            variant = f"{source}-entropy" if entropy else source
            yield Case(
                "token_nll", variant, target, dtype, constants, tile.warps, tile.stages, True
            )


def compile_case(case: Case) -> Report:
    """Compile one configuration and read the result.

    Raises:
        triton.CompilationError: the kernel does not compile for the target.
    """
    kernel = KERNELS[case.kernel]
    signature, attributes = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in case.constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = POINTERS.get(name, f"*{NAMES[case.dtype]}")
        else:
            signature[name] = "i64" if name in LONG else "fp32" if name in FLOAT else "i32"
        if name not in case.constants and (name.endswith("_ptr") or name in ALIGNED):
            attributes[index,] = [["tt.divisibility", 16]]
    device = config.TARGETS[case.target]
    arch = case.target if device.amd else int(case.target.removeprefix("sm_"))
    compiled = triton.compile(
        ASTSource(kernel, signature, case.constants, attributes),
        target=GPUTarget("hip" if device.amd else "cuda", arch, device.warp_size),
        options={"num_warps": case.warps, "num_stages": case.stages},
    )
    text = compiled.asm["amdgcn" if device.amd else "ptx"]
    registers, spills = _resources_amd(text) if device.amd else _resources(compiled.asm["cubin"])
    backend = "hip" if device.amd else "cuda"
    return Report(
        case.name,
        registers,
        spills,
        compiled.metadata.shared,
        len(re.findall(TENSOR_OP[case.target], text)),
        len(re.findall(WIDE_LOAD[backend], text)),
        len(re.findall(r"^\s+[a-z@][^:\n]*$" if device.amd else r"^\s+[a-z@{].*;", text, re.M)),
    )


def _resources(cubin: bytes) -> tuple[int, int]:
    """Read registers and stack bytes of a cubin: without a driver, only the tool knows them."""
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
    counts = {key: int(value) for key, value in re.findall(r"\.(\w+_count):\s+(\d+)", text)}
    return counts["vgpr_count"], counts["vgpr_spill_count"] + counts["sgpr_spill_count"]


def compile_all(what: Iterable[Case], workers: int) -> list[Report]:
    """Compile many configurations on several processes; the order is that of the cases."""
    # A forked child would inherit the locks of torch's threads.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return pool.map(compile_case, what, chunksize=1)


def read_table(path: Path) -> tuple[str, dict[str, Report]]:
    """Read a committed table: the Triton version that made it, and a report per case."""
    with path.open(newline="") as file:
        version = file.readline().removeprefix("# triton ").strip()
        rows = [
            Report(row.pop("name"), **{k: int(v) for k, v in row.items()})
            for row in csv.DictReader(file)
        ]
    return version, {row.name: row for row in rows}


def write_table(path: Path, reports: Iterable[Report]) -> None:
    """Write a table that `read_table` reads."""
    with path.open("w", newline="") as file:
        file.write(f"# triton {triton.__version__}\n")
        names = [field.name for field in fields(Report)]
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(report) for report in reports)


def main() -> None:
    """Compile everything; print a summary and, with --write, renew the committed table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="the table to renew")
    parser.add_argument("--target", choices=config.TARGETS, help="one target alone")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    targets = [arguments.target] if arguments.target else list(config.TARGETS)
    reports = compile_all([c for t in targets for c in cases(t)], arguments.workers)
    for report in reports:
        print(*asdict(report).values())
    spilling = Counter(report.spills > 0 for report in reports)[True]
    print(f"{len(reports)} configurations, {spilling} with spills")
    if arguments.write:
        write_table(arguments.write, reports)
