"""This machine's roofline, measured by a product and a copy, and its installed versions."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch

from lc_engine.ops.processor import cpu_features

if TYPE_CHECKING:
    from collections.abc import Callable

_PACKAGES = ("lc_engine", "torch", "numpy", "triton", "timm", "torchvision", "transformers")
_SIDE = 1536
_COPIED_BYTES = 256 << 20
_TRIES = 5


@dataclass(frozen=True)
class Machine:
    """This machine's roofline, and what is installed.

    Attributes:
        flops: of a product of float32 matrices, per second.
        bfloat16_flops: the same in bfloat16.
        bandwidth: bytes per second that a copy reads and writes.
        processors: that this process may use.
        threads: that torch uses.
        processor: its name.
        features: instructions that products may use, of `CpuFeatures`.
        versions: of Python and of the packages that are installed.
    """

    flops: float
    bfloat16_flops: float
    bandwidth: float
    processors: int
    threads: int
    processor: str
    features: list[str]
    versions: dict[str, str]


@dataclass(frozen=True)
class Work:
    """The least that one dense forward of all rows takes.

    Attributes:
        flops: multiplications and additions.
        bytes: inputs and weights, read once.
    """

    flops: int
    bytes: int

    def seconds(self, machine: Machine) -> float:
        """Return the time under the machine's float32 roofline."""
        return max(self.flops / machine.flops, self.bytes / machine.bandwidth)


def measure_machine() -> Machine:
    """Measure the roofline: the best of a few tries each."""
    return Machine(
        flops=2 * _SIDE**3 / _product(torch.float32),
        bfloat16_flops=2 * _SIDE**3 / _product(torch.bfloat16),
        bandwidth=2 * _COPIED_BYTES / _copy(),
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        threads=torch.get_num_threads(),
        processor=_processor(),
        features=[name for name, there in cpu_features()._asdict().items() if there],
        versions={"python": platform.python_version()} | _versions(),
    )


def _product(dtype: torch.dtype) -> float:
    a, b = (torch.ones(_SIDE, _SIDE, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return _best(lambda: torch.mm(a, b, out=out))


def _copy() -> float:
    source = torch.ones(_COPIED_BYTES // 4)
    target = torch.empty_like(source)
    return _best(lambda: target.copy_(source))


def _best(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as text:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in text if line.startswith("model n")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
