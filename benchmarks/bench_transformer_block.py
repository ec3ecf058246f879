"""TransformerBlockPlan on a CPU against the same layers one after the other, and torch's.

A block of a ViT at 224 px, 197 tokens, with its norms and residuals; "tiny" is 192 wide and
"base" 768. `apart` runs the layers in int8 and attention in bfloat16, `torch` all in one dtype,
`compiled` in bfloat16 after `torch.compile`. Weights are ready, tensors bfloat16 but for float32.

    pytest benchmarks/bench_transformer_block.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor

from lc_engine.ops import Int8LinearPlan, TransformerBlockPlan, attention
from lc_engine.ops.layers.int8_linear import InputNorm

# images, dims, heads
BLOCKS = {"tiny": (64, 192, 3), "base": (8, 768, 12)}
TOKENS = 197


@cache
def case(name: str, dtype: torch.dtype) -> tuple[Tensor, Any]:
    images, dims, heads = BLOCKS[name]
    torch.manual_seed(0)
    model = Block(dims, heads, qkv_bias=True).eval().requires_grad_(False)
    return torch.randn(images, TOKENS, dims).to(dtype), model.to(dtype)


def plans(block: Any) -> tuple[Int8LinearPlan, Int8LinearPlan, Int8LinearPlan]:
    norms = [InputNorm(norm.weight, norm.bias, norm.eps) for norm in (block.norm1, block.norm2)]
    attn, mlp = block.attn, block.mlp
    return (
        Int8LinearPlan([attn.qkv.weight], [attn.qkv.bias], [None], norms[0]),
        Int8LinearPlan([attn.proj.weight], [attn.proj.bias], [None]),
        Int8LinearPlan(
            [mlp.fc1.weight, mlp.fc2.weight],
            [mlp.fc1.bias, mlp.fc2.bias],
            ["gelu", None],
            norms[1],
        ),
    )


def timed(benchmark, name: str, threads: int, way, x: Tensor) -> None:
    benchmark.group = f"block {name} {threads}t"
    with torch.inference_mode():
        out = benchmark.pedantic(way, [x], rounds=9, warmup_rounds=2)
        given, block = case(name, torch.float32)
        wanted = block(given)
    added = (wanted - given).norm()
    assert float((out.float() - wanted).norm() / added) < 0.03


@pytest.mark.parametrize("name", BLOCKS)
def test_engine(benchmark, name, threads):
    x, block = case(name, torch.bfloat16)
    timed(benchmark, name, threads, TransformerBlockPlan(*plans(block), BLOCKS[name][2]), x)


@pytest.mark.parametrize("name", BLOCKS)
def test_apart(benchmark, name, threads):
    x, block = case(name, torch.bfloat16)
    qkv, projection, mlp = plans(block)
    heads = BLOCKS[name][2]

    def apart(x: Tensor) -> Tensor:
        q, k, v = qkv(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + projection(attention(q, k, v).transpose(1, 2).flatten(2))
        return x + mlp(x)

    timed(benchmark, name, threads, apart, x)


@pytest.mark.parametrize("name", BLOCKS)
def test_torch_float32(benchmark, name, threads):
    x, block = case(name, torch.float32)
    timed(benchmark, name, threads, block, x)


@pytest.mark.parametrize("name", BLOCKS)
def test_torch_bfloat16(benchmark, name, threads):
    x, block = case(name, torch.bfloat16)
    timed(benchmark, name, threads, block, x)


@pytest.mark.parametrize("name", BLOCKS)
def test_compiled(benchmark, name, threads):
    x, block = case(name, torch.bfloat16)
    timed(benchmark, name, threads, torch.compile(block), x)
