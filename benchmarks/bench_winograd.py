"""WinogradPlan on a CPU against torch's convolution in the same dtype.

The layers are those of ResNet-18 at 224 px, over 8 images. The engine transforms the weights
anew each time, which a job does once per sub-model and batch; `weights_ready` is given them, and
`int8` too, whose products are in int8.

    pytest benchmarks/bench_winograd.py --benchmark-only
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from lc_engine.ops import WinogradPlan

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Channels, pixels on a side.
LAYERS = {"64-64": (64, 56), "128-128": (128, 28), "256-256": (256, 14), "512-512": (512, 7)}


@cache
def case(layer: str, dtype: str) -> tuple[Tensor, Tensor]:
    """Inputs and weight, channels-last."""
    channels, side = LAYERS[layer]
    seed = torch.Generator().manual_seed(0)
    shapes = ((8, channels, side, side), (channels, channels, 3, 3))
    x, weight = (
        torch.randn(*shape, generator=seed)
        .to(DTYPES[dtype])
        .contiguous(memory_format=torch.channels_last)
        for shape in shapes
    )
    return x, weight


def dense(x: Tensor, weight: Tensor) -> Tensor:
    return conv2d(x, weight, padding=1)


def engine(x: Tensor, weight: Tensor) -> Tensor:
    return WinogradPlan(weight, padding=(1, 1))(x)


def check(out: Tensor, layer: str, dtype: str, rough: float) -> None:
    wanted = dense(*(part.double() for part in case(layer, dtype)))
    scale = wanted.abs().max().item()
    torch.testing.assert_close(out.double(), wanted, rtol=rough, atol=rough * scale)


every = pytest.mark.parametrize("layer", LAYERS)
dtypes = pytest.mark.parametrize("dtype", list(DTYPES))


def timed(
    benchmark, layer: str, dtype: str, threads: int, way, *arguments, rough: float | None = None
) -> None:
    benchmark.group = f"winograd {layer} {dtype} {threads}t"
    out = benchmark.pedantic(way, arguments, rounds=15, warmup_rounds=3)
    check(out, layer, dtype, rough or (2e-2 if dtype == "bfloat16" else 1e-5))


@every
@dtypes
def test_engine(benchmark, layer, threads, dtype):
    timed(benchmark, layer, dtype, threads, engine, *case(layer, dtype))


@every
@dtypes
def test_weights_ready(benchmark, layer, threads, dtype):
    x, weight = case(layer, dtype)
    timed(benchmark, layer, dtype, threads, WinogradPlan(weight, padding=(1, 1)), x)


@every
def test_int8(benchmark, layer, threads):
    x, weight = case(layer, "bfloat16")
    plan = WinogradPlan(weight, padding=(1, 1), int8=True)
    timed(benchmark, layer, "bfloat16", threads, plan, x, rough=4e-2)


@every
@dtypes
def test_dense(benchmark, layer, threads, dtype):
    timed(benchmark, layer, dtype, threads, dense, *case(layer, dtype))
