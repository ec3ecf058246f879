"""ops.attention on a CPU against torch's own and plain products, for models' shapes.

Tensors lie as timm makes them: queries, keys and values are views of one tensor. `vit_tiny` is a
layer of 8 images of 224 px, `vit_base_384` one image of 384 px, `narrow_1024` one image
of 32 x 32 tokens with narrow heads.

    pytest benchmarks/bench_attention.py --benchmark-only
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lc_engine.ops import attention

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# images, tokens, heads, dims
LAYERS = {
    "vit_tiny": (8, 197, 3, 64),
    "vit_base_384": (1, 577, 12, 64),
    "narrow_1024": (1, 1024, 8, 40),
}


@cache
def case(layer: str) -> Tensor:
    images, tokens, heads, dims = LAYERS[layer]
    seed = torch.Generator().manual_seed(0)
    return torch.randn(images, tokens, 3, heads, dims, generator=seed).bfloat16()


def views(layer: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return case(layer).to(dtype).permute(2, 0, 3, 1, 4).unbind(0)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v


def check(out: Tensor, layer: str) -> None:
    wanted = plain(*views(layer, torch.float64))
    rough = 2e-2 if out.dtype == torch.bfloat16 else 1e-5
    scale = wanted.abs().max().item()
    torch.testing.assert_close(out.double(), wanted, rtol=rough, atol=rough * scale)


PEERS = {"torch": scaled_dot_product_attention, "plain": plain}
layers = pytest.mark.parametrize("layer", list(LAYERS))
dtypes = pytest.mark.parametrize("dtype", list(DTYPES))


def time(benchmark, way, layer, dtype, threads):
    benchmark.group = f"attention {layer} {dtype} {threads}t"
    given = views(layer, DTYPES[dtype])
    check(benchmark.pedantic(way, given, rounds=30, warmup_rounds=3), layer)


@layers
@dtypes
def test_engine(benchmark, layer, dtype, threads):
    time(benchmark, attention, layer, dtype, threads)


@layers
@dtypes
@pytest.mark.parametrize("peer", list(PEERS))
def test_peer(benchmark, layer, dtype, threads, peer):
    time(benchmark, PEERS[peer], layer, dtype, threads)
