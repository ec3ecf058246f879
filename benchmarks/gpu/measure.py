"""Measurements of one call on a device, and of the device's rates."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton.testing
from torch.autograd import DeviceType

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Measurement:
    """Times in milliseconds (median, 20th and 80th percentile), peak memory in MiB, launches."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    peak_mib: float
    launches: int


def measure(
    call: Callable[[], object],
    device: torch.device,
    budget_ms: int = 300,
    *,
    captured: bool = False,
) -> Measurement:
    """Return the launches and memory of one call, and its times over as many as the budget allows.

    Args:
        call: the function to measure.
        device: where it runs; on the host it is called once, for a rehearsal.
        budget_ms: milliseconds of timed calls.
        captured: whether to time calls in a CUDA graph, without the host's overhead.
    """
    if device.type == "cpu":
        began = time.perf_counter()
        call()
        once = 1e3 * (time.perf_counter() - began)
        return Measurement(once, once, once, 0.0, 0)
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    launches = sum(event.device_type == DeviceType.CUDA for event in profile.events())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    quantiles = [0.5, 0.2, 0.8]
    if captured:
        times = triton.testing.do_bench_cudagraph(call, rep=budget_ms, quantiles=quantiles)
    else:
        times = triton.testing.do_bench(
            call, warmup=budget_ms // 5, rep=budget_ms, quantiles=quantiles
        )
    return Measurement(*times, peak / 2**20, launches)


@dataclass(frozen=True)
class Roof:
    """Rates per second that libraries reach on this device."""

    flops: dict[torch.dtype, float]
    bandwidth: float


def measure_roof(device: torch.device, size: int = 8192) -> Roof:
    """Time a large matrix product per dtype, and a copy of four such matrices."""
    flops = {}
    for dtype in (torch.bfloat16, torch.float32):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        flops[dtype] = 2 * size**3 / (measure(lambda a=a, b=b: a @ b, device).median_ms * 1e-3)
    source = torch.randn(4 * size**2, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / (measure(lambda: target.copy_(source), device).median_ms * 1e-3)
    return Roof(flops, copied)
