"""The families of devices that kernels are compiled for."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

KIB = 1024


@dataclass(frozen=True)
class Target:
    """A family of devices that shares its tiles.

    Attributes:
        arch: "sm_80", "sm_90", "sm_100", "sm_120", "gfx942" or "gfx950".
        units: streaming multiprocessors or compute units of the device.
        shared_bytes: shared memory that one program may take.
        warp_size: threads of a warp or wavefront.
        memory_bytes: memory of the device.
    """

    arch: str
    units: int
    shared_bytes: int
    warp_size: int = 32
    memory_bytes: int = 16 << 30

    @property
    def amd(self) -> bool:
        """Whether the target is compiled by Triton's HIP backend."""
        return self.arch.startswith("gfx")


TARGETS = {
    # An A100 has 163 KiB, but devices of 8.6 and 8.9 take its tiles too.
    "sm_80": Target("sm_80", units=108, shared_bytes=99 * KIB),
    "sm_90": Target("sm_90", units=132, shared_bytes=227 * KIB),
    "sm_100": Target("sm_100", units=148, shared_bytes=227 * KIB),
    "sm_120": Target("sm_120", units=170, shared_bytes=99 * KIB),
    "gfx942": Target("gfx942", units=304, shared_bytes=64 * KIB, warp_size=64),
    "gfx950": Target("gfx950", units=256, shared_bytes=160 * KIB, warp_size=64),
}


@functools.cache
def target_of(device: torch.device) -> Target:
    """Return the target of a device; on the host, in Triton's interpreter, that of an H100.

    Raises:
        ValueError: an NVIDIA device older than Ampere.
    """
    if device.type != "cuda":
        return Target("sm_90", units=1, shared_bytes=227 * KIB)
    properties = torch.cuda.get_device_properties(device)
    units = properties.multi_processor_count
    if torch.version.hip:
        # "gfx950:sramecc+:xnack-": the name, then features that are on or off.
        name = properties.gcnArchName.partition(":")[0]
        known = TARGETS["gfx950" if name == "gfx950" else "gfx942"]
    elif properties.major < 8:
        raise ValueError(
            f"{properties.name} has compute capability {properties.major}.{properties.minor}; the "
            'Triton kernels need 8.0 or more: pass backend="reference"'
        )
    else:
        # Every NVIDIA device has Ampere's instructions, and room for its tiles.
        arch = {9: "sm_90", 10: "sm_100", 12: "sm_120"}.get(properties.major, "sm_80")
        known = TARGETS[arch]
    memory = properties.total_memory
    return Target(known.arch, units, known.shared_bytes, known.warp_size, memory)
