"""DepthwisePlan on a CPU against torch's convolution in the same dtype, with a ReLU6 after it.

The layers are some of EfficientNet-Lite0's at 224 px, over 8 images; those of stride 2 pad as
TensorFlow's "same", which torch does in a pass of its own. `packed` is given the weights as oneDNN
wants them, `engine` makes its plan anew each time, as a job does once per sub-model and batch.

    pytest benchmarks/bench_depthwise.py --benchmark-only
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from timm.layers.conv2d_same import pad_same
from torch import Tensor
from torch.nn.functional import conv2d

from lc_engine.ops import DepthwisePlan

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Channels, pixels on a side, kernel, stride.
LAYERS = {
    "32 3x3": (32, 112, 3, 1),
    "96 3x3 /2": (96, 112, 3, 2),
    "144 3x3": (144, 56, 3, 1),
    "240 5x5": (240, 28, 5, 1),
    "672 5x5": (672, 14, 5, 1),
    "672 5x5 /2": (672, 14, 5, 2),
    "1152 5x5": (1152, 7, 5, 1),
}


@cache
def case(layer: str, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, weight and bias; bfloat16 holds all numbers, so that no form loses any."""
    channels, side, kernel, _ = LAYERS[layer]
    seed = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, generator=seed).bfloat16()
        for shape in ((8, channels, side, side), (channels, 1, kernel, kernel), (channels,))
    )
    x = x.to(DTYPES[dtype]).contiguous(memory_format=torch.channels_last)
    return x, weight.to(DTYPES[dtype]), bias.to(DTYPES[dtype])


def padded(x: Tensor, layer: str) -> tuple[Tensor, int]:
    _, _, kernel, stride = LAYERS[layer]
    return (x, kernel // 2) if stride == 1 else (pad_same(x, [kernel] * 2, [stride] * 2), 0)


def dense(x: Tensor, weight: Tensor, bias: Tensor, layer: str) -> Tensor:
    x, padding = padded(x, layer)
    return conv2d(x, weight, bias, LAYERS[layer][3], padding, groups=len(weight)).clamp_(0, 6)


def packed(x: Tensor, ready: Tensor, bias: Tensor, layer: str) -> Tensor:
    x, padding = padded(x, layer)
    step = [LAYERS[layer][3]] * 2
    out = torch.ops.mkldnn._convolution_pointwise(
        x, ready, bias, [padding] * 2, step, [1, 1], len(bias), "none", [], ""
    )
    return out.clamp_(0, 6)


def plan(weight: Tensor, bias: Tensor, layer: str) -> DepthwisePlan:
    _, _, kernel, stride = LAYERS[layer]
    padding = (kernel // 2, kernel // 2) if stride == 1 else "same"
    return DepthwisePlan(weight, bias, stride=(stride, stride), padding=padding, activation="relu6")


def engine(x: Tensor, weight: Tensor, bias: Tensor, layer: str) -> Tensor:
    return plan(weight, bias, layer)(x)


every = pytest.mark.parametrize("layer", LAYERS)
dtypes = pytest.mark.parametrize("dtype", list(DTYPES))


def timed(benchmark, layer: str, dtype: str, threads: int, way, *arguments) -> None:
    benchmark.group = f"depthwise {layer} {dtype} {threads}t"
    out = benchmark.pedantic(way, arguments, rounds=15, warmup_rounds=3)
    wanted = dense(*(part.double() for part in case(layer, dtype)), layer)
    tolerance = 2**-7 if dtype == "bfloat16" else 1e-5
    torch.testing.assert_close(out.double(), wanted, rtol=tolerance, atol=tolerance)


@every
@dtypes
def test_engine(benchmark, layer, threads, dtype):
    timed(benchmark, layer, dtype, threads, engine, *case(layer, dtype), layer)


@every
@dtypes
def test_dense(benchmark, layer, threads, dtype):
    timed(benchmark, layer, dtype, threads, dense, *case(layer, dtype), layer)


@every
@dtypes
def test_packed(benchmark, layer, threads, dtype):
    x, weight, bias = case(layer, dtype)
    stride, padding = [LAYERS[layer][3]] * 2, [padded(x[:1], layer)[1]] * 2
    ready = torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, stride, [1, 1], len(weight), padded(x, layer)[0].shape
    )
    timed(benchmark, layer, dtype, threads, packed, x, ready, bias, layer)
