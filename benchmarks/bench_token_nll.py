"""token_nll on a CPU against its named peers, per number of tokens, dtype and thread count.

The head is that of SmolLM2-135M. Peers form all logits, as one would; the bfloat16 one multiplies
in bfloat16, which torch rounds to bfloat16, and keeps fewer digits than either engine.

    pytest benchmarks/bench_token_nll.py --benchmark-only
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from lc_engine import ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

WORDS, WIDTH = 49_152, 576
TOKENS = [64, 256]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Case(NamedTuple):
    hidden: Tensor
    weight: Tensor
    targets: Tensor

    def to(self, dtype: torch.dtype) -> Case:
        return Case(self.hidden.to(dtype), self.weight.to(dtype), self.targets)


@cache
def case(tokens: int) -> Case:
    """Numbers that bfloat16 holds too, so that all contenders are given the same."""
    seed = torch.Generator().manual_seed(tokens)
    return Case(
        torch.randn(tokens, WIDTH, generator=seed).bfloat16().float(),
        (torch.randn(WORDS, WIDTH, generator=seed) / 10).bfloat16().float(),
        torch.randint(WORDS, (tokens,), generator=seed),
    )


@cache
def expected(tokens: int) -> Tensor:
    return full_logits(case(tokens))


def full_logits(given: Case) -> Tensor:
    logits = (given.hidden @ given.weight.T).float()
    return -log_softmax(logits, -1).gather(-1, given.targets.unsqueeze(-1)).squeeze(-1)


def fused_loss(given: Case) -> Tensor:
    logits = (given.hidden @ given.weight.T).float()
    return cross_entropy(logits, given.targets, reduction="none")


def reference(given: Case) -> Tensor:
    return ops.token_nll(given.hidden[None], given.weight, given.targets, backend="reference")[0]


PEERS: dict[str, tuple[Callable[[Case], Tensor], str, float]] = {
    "full-logits": (full_logits, "float32", 2e-5),
    "cross-entropy": (fused_loss, "float32", 2e-5),
    "bfloat16-full-logits": (full_logits, "bfloat16", 1e-1),
    "tiled-torch": (reference, "float32", 2e-5),
    "bfloat16-tiled-torch": (reference, "bfloat16", 2e-5),
}


def group(tokens: int, threads: int) -> str:
    return f"token_nll D={WIDTH} V={WORDS} T={tokens} {threads}t"


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("form", list(DTYPES))
def test_engine(benchmark, tokens, threads, form):
    h, w, y = case(tokens).to(DTYPES[form])
    benchmark.group = group(tokens, threads)
    nll = benchmark.pedantic(lambda: ops.token_nll(h[None], w, y)[0], rounds=3, warmup_rounds=1)
    torch.testing.assert_close(nll, expected(tokens), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("peer", list(PEERS))
def test_peer(benchmark, tokens, threads, peer):
    function, dtype, tolerance = PEERS[peer]
    benchmark.group = group(tokens, threads)
    given = case(tokens).to(DTYPES[dtype])
    nll = benchmark.pedantic(function, (given,), rounds=3, warmup_rounds=1)
    torch.testing.assert_close(nll, expected(tokens), atol=tolerance, rtol=tolerance)
