"""Int8LinearPlan on a CPU against torch's linear layers in float32 and bfloat16.

The layers are those of ViT-Tiny at 224 px, over 8 images of 197 tokens; "mlp" is two with a
GELU between them. The engine quantizes the weights each time, which a job does once per sub-model
and batch; `weights_ready` is given them. bfloat16 in and out, but for torch's float32.

    pytest benchmarks/bench_int8_linear.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from lc_engine.ops import Int8LinearPlan

# Widths from layer to layer.
LAYERS = {"192-576": (192, 576), "192-192": (192, 192), "mlp": (192, 768, 192)}


@cache
def case(layer: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Inputs and weights, of a size that keeps outputs about 1."""
    seed = torch.Generator().manual_seed(0)
    widths = LAYERS[layer]
    x = torch.randn(8, 197, widths[0], generator=seed)
    weights = (torch.randn(b, a, generator=seed) / a**0.5 for a, b in pairwise(widths))
    return x.bfloat16(), tuple(weight.bfloat16() for weight in weights)


def plan(weights: tuple[Tensor, ...]) -> Int8LinearPlan:
    activations = ["gelu"] * (len(weights) - 1)
    return Int8LinearPlan(weights, [None] * len(weights), [*activations, None])


def engine(x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    return plan(weights)(x)


def dense(x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    for weight in weights[:-1]:
        x = gelu(linear(x, weight))
    return linear(x, weights[-1])


def timed(benchmark, layer: str, threads: int, way, *arguments) -> None:
    benchmark.group = f"int8 {layer} {threads}t"
    out = benchmark.pedantic(way, arguments, rounds=15, warmup_rounds=3)
    x, weights = case(layer)
    wanted = dense(x.double(), tuple(weight.double() for weight in weights))
    assert float((out - wanted).norm() / wanted.norm()) < 0.02


@pytest.mark.parametrize("layer", LAYERS)
def test_engine(benchmark, layer, threads):
    timed(benchmark, layer, threads, engine, *case(layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_weights_ready(benchmark, layer, threads):
    x, weights = case(layer)
    timed(benchmark, layer, threads, plan(weights), x)


@pytest.mark.parametrize("layer", LAYERS)
def test_dense_bfloat16(benchmark, layer, threads):
    timed(benchmark, layer, threads, dense, *case(layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_dense_float32(benchmark, layer, threads):
    x, weights = case(layer)
    timed(benchmark, layer, threads, dense, x.float(), tuple(w.float() for w in weights))
