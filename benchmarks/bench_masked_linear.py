"""masked_linear on a CPU against its named peers, per layer and thread count.

The layers are those of ViT-Tiny's and SmolLM2-135M's MLPs, over 8 images' tokens for each of
eight sub-models. `linears-loop` is given its K masked weights ready made, which the engine is not:
it is the least that K dense layers cost.

    pytest benchmarks/bench_masked_linear.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
from torch.nn.functional import gelu, linear

from lc_engine import ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SUB_MODELS, ROWS = 8, 8 * 197
LAYERS = [(192, 768), (576, 1536)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Layer(NamedTuple):
    x: Tensor
    weight: Tensor
    bias: Tensor
    thresholds: Tensor
    masked: Tensor  # (K, outputs, inputs)

    def to(self, dtype: torch.dtype) -> Layer:
        parts = (part.to(dtype) for part in (self.x, self.weight, self.bias))
        return Layer(*parts, self.thresholds, self.masked.to(dtype))


@cache
def layer(inputs: int, outputs: int) -> Layer:
    """Numbers that bfloat16 holds too, so that all contenders are given the same."""
    seed = torch.Generator().manual_seed(outputs)
    x = torch.randn(SUB_MODELS, ROWS, inputs, generator=seed).bfloat16().float()
    weight = (torch.randn(outputs, inputs, generator=seed) / inputs**0.5).bfloat16().float()
    bias = torch.randn(outputs, generator=seed).bfloat16().float()
    thresholds = torch.quantile(weight.abs().flatten(), torch.linspace(0, 0.9, SUB_MODELS))
    masked = torch.where(weight.abs() >= thresholds[:, None, None], weight, 0)
    return Layer(x, weight, bias, thresholds, masked)


@cache
def expected(inputs: int, outputs: int) -> Tensor:
    return linears(layer(inputs, outputs))


def linears(given: Layer) -> Tensor:
    both = zip(given.x, given.masked, strict=True)
    return torch.stack([gelu(linear(x, weight, given.bias)) for x, weight in both])


def masked_loop(given: Layer) -> Tensor:
    out = []
    for x, threshold in zip(given.x, given.thresholds, strict=True):
        weight = torch.where(given.weight.abs() >= threshold, given.weight, 0)
        out.append(gelu(linear(x, weight, given.bias)))
    return torch.stack(out)


def batched(given: Layer) -> Tensor:
    return gelu(torch.baddbmm(given.bias, given.x, given.masked.transpose(1, 2)))


PEERS: dict[str, tuple[Callable[[Layer], Tensor], str]] = {
    "masked-loop": (masked_loop, "float32"),
    "linears-loop": (linears, "float32"),
    "batched-product": (batched, "float32"),
    "bfloat16-masked-loop": (masked_loop, "bfloat16"),
}


def group(inputs: int, outputs: int, threads: int) -> str:
    return f"masked_linear {inputs}-{outputs} K={SUB_MODELS} M={ROWS} {threads}t"


def check(out: Tensor, wanted: Tensor) -> None:
    tolerance = 2e-2 if out.dtype == torch.bfloat16 else 2e-5
    torch.testing.assert_close(out.float(), wanted, atol=tolerance, rtol=tolerance)


shapes = pytest.mark.parametrize(("inputs", "outputs"), LAYERS)


@shapes
@pytest.mark.parametrize("form", list(DTYPES))
def test_engine(benchmark, inputs, outputs, threads, form):
    x, weight, bias, thresholds, _ = layer(inputs, outputs).to(DTYPES[form])
    benchmark.group = group(inputs, outputs, threads)
    out = benchmark.pedantic(
        ops.masked_linear,
        (x, weight, bias, thresholds),
        {"activation": "gelu"},
        rounds=3,
        warmup_rounds=1,
    )
    check(out, expected(inputs, outputs))


@shapes
@pytest.mark.parametrize("peer", list(PEERS))
def test_peer(benchmark, inputs, outputs, threads, peer):
    function, dtype = PEERS[peer]
    benchmark.group = group(inputs, outputs, threads)
    given = layer(inputs, outputs).to(DTYPES[dtype])
    out = benchmark.pedantic(function, (given,), rounds=3, warmup_rounds=1)
    check(out, expected(inputs, outputs))
