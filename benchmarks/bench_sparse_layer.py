"""SparseLayerPlan on a CPU against dense products and torch's own sparse one, per density.

The layers are one of ViT-Tiny's (eight images' tokens) and one of ResNet-18's (eight images).
The engine makes the lists anew each time, which a job does once per sub-model and batch;
`lists_ready` is given them.

    pytest benchmarks/bench_sparse_layer.py --benchmark-only
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear

from lc_engine.ops import SparseLayerPlan

DENSITIES = [0.02, 0.2, 0.5]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LAYERS = ["linear 192-768", "convolution 256-256"]


@cache
def case(layer: str, density: float) -> tuple[Tensor, Tensor]:
    """Inputs and weight, in numbers that bfloat16 holds too."""
    seed = torch.Generator().manual_seed(0)
    if layer == "linear 192-768":
        x, weight = (torch.randn(*s, generator=seed) for s in ((8 * 197, 192), (768, 192)))
    else:
        x, weight = (torch.randn(*s, generator=seed) for s in ((8, 256, 14, 14), (256, 256, 3, 3)))
        x = x.contiguous(memory_format=torch.channels_last)
        weight = weight.contiguous(memory_format=torch.channels_last)
    keep = torch.rand(weight.shape, generator=seed) < density
    return x.bfloat16().float(), (weight * keep).bfloat16().float()


def dense(x: Tensor, weight: Tensor) -> Tensor:
    return linear(x, weight) if x.dim() == 2 else conv2d(x, weight, padding=1)


def plan_of(weight: Tensor) -> SparseLayerPlan:
    return SparseLayerPlan(weight, padding=(weight.dim() // 4,) * 2)


def check(out: Tensor, layer: str, density: float) -> None:
    wanted = dense(*(part.double() for part in case(layer, density)))
    rough = 1e-2 if out.dtype == torch.bfloat16 else 1e-5
    scale = wanted.abs().max().item()
    torch.testing.assert_close(out.double(), wanted, rtol=rough, atol=rough * scale)


every = pytest.mark.parametrize("layer", LAYERS)
thin = pytest.mark.parametrize("density", DENSITIES)
dtypes = pytest.mark.parametrize("dtype", list(DTYPES))


def given(layer: str, density: float, dtype: str) -> tuple[Tensor, Tensor]:
    x, weight = (part.to(DTYPES[dtype]) for part in case(layer, density))
    return x, weight


def timed(benchmark, layer: str, density: float, dtype: str, threads: int, way, *arguments) -> None:
    benchmark.group = f"sparse_layer {layer} density {density} {dtype} {threads}t"
    out = benchmark.pedantic(way, arguments, rounds=15, warmup_rounds=3)
    check(out, layer, density)


@every
@thin
@dtypes
def test_engine(benchmark, layer, density, threads, dtype):
    pair = given(layer, density, dtype)
    timed(benchmark, layer, density, dtype, threads, lambda x, weight: plan_of(weight)(x), *pair)


@every
@thin
@dtypes
def test_lists_ready(benchmark, layer, density, threads, dtype):
    x, weight = given(layer, density, dtype)
    timed(benchmark, layer, density, dtype, threads, plan_of(weight), x)


@every
@thin
@dtypes
def test_dense(benchmark, layer, density, threads, dtype):
    timed(benchmark, layer, density, dtype, threads, dense, *given(layer, density, dtype))


@thin
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_torch_sparse_csr(benchmark, density, threads):
    layer = "linear 192-768"
    x, weight = case(layer, density)
    lists = weight.to_sparse_csr()
    timed(benchmark, layer, density, "float32", threads, lambda: (lists @ x.t()).t())
