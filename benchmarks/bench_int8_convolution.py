"""Int8ConvolutionPlan on a CPU against torch's convolution in float32 and bfloat16.

The layers are those of ResNet-18 at 224 px that Winograd's method does not take, over eight
images. The engine quantizes the weights anew each time, which a job does once per sub-model and
batch; `weights_ready` is given them. bfloat16 in and out, but for torch's float32.

    pytest benchmarks/bench_int8_convolution.py --benchmark-only
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from lc_engine.ops import Int8ConvolutionPlan

# Channels in and out, kernel, stride, padding, pixels on a side.
LAYERS = {
    "3-64, 7 x 7": (3, 64, 7, 2, 3, 224),
    "64-128, 3 x 3": (64, 128, 3, 2, 1, 56),
    "128-256, 3 x 3": (128, 256, 3, 2, 1, 28),
    "256-512, 3 x 3": (256, 512, 3, 2, 1, 14),
    "64-128, 1 x 1": (64, 128, 1, 2, 0, 56),
}


@cache
def case(layer: str) -> tuple[Tensor, Tensor]:
    """Inputs and weight, channels-last, of a size that keeps outputs about 1."""
    seed = torch.Generator().manual_seed(0)
    channels, outputs, kernel, _, _, side = LAYERS[layer]
    x = torch.randn(8, channels, side, side, generator=seed)
    weight = torch.randn(outputs, channels, kernel, kernel, generator=seed)
    weight /= (channels * kernel**2) ** 0.5
    return tuple(
        part.bfloat16().contiguous(memory_format=torch.channels_last) for part in (x, weight)
    )


def plan(layer: str, weight: Tensor) -> Int8ConvolutionPlan:
    _, _, _, stride, padding, _ = LAYERS[layer]
    return Int8ConvolutionPlan(weight, stride=(stride, stride), padding=(padding, padding))


def engine(layer: str, x: Tensor, weight: Tensor) -> Tensor:
    return plan(layer, weight)(x)


def dense(layer: str, x: Tensor, weight: Tensor) -> Tensor:
    _, _, _, stride, padding, _ = LAYERS[layer]
    return conv2d(x, weight, None, stride, padding)


def timed(benchmark, layer: str, threads: int, way, *arguments) -> None:
    benchmark.group = f"int8 {layer} {threads}t"
    out = benchmark.pedantic(way, arguments, rounds=15, warmup_rounds=3)
    wanted = dense(layer, *(part.double() for part in case(layer)))
    assert float((out - wanted).norm() / wanted.norm()) < 0.02


@pytest.mark.parametrize("layer", LAYERS)
def test_engine(benchmark, layer, threads):
    timed(benchmark, layer, threads, engine, layer, *case(layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_weights_ready(benchmark, layer, threads):
    x, weight = case(layer)
    timed(benchmark, layer, threads, plan(layer, weight), x)


@pytest.mark.parametrize("layer", LAYERS)
def test_dense_bfloat16(benchmark, layer, threads):
    timed(benchmark, layer, threads, dense, layer, *case(layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_dense_float32(benchmark, layer, threads):
    x, weight = case(layer)
    timed(benchmark, layer, threads, dense, layer, x.float(), weight.float())
