"""Memory and time of the vocabulary head: 4,096 tokens x 49,152 words, beside full logits.

    python -m benchmarks.language.head_memory [--dtype bfloat16]

The peak is that of the process beyond what it was before the call; full logits are measured after,
so that their peak cannot hide behind the operator's.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import TYPE_CHECKING

import torch

from lc_engine import ops

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS, WORDS, WIDTH = 4096, 49_152, 576  # SmolLM2-135M's head


def measured(name: str, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    nll = compute()
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(f"{name}: {grown / 1e6:.1f} MB beyond the inputs, {seconds:.2f} s")
    return nll


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    dtype = getattr(torch, parser.parse_args().dtype)
    torch.set_grad_enabled(False)
    hidden = torch.randn(TOKENS, WIDTH, dtype=dtype)
    weight = torch.randn(WORDS, WIDTH, dtype=dtype) / 10
    targets = torch.randint(WORDS, (TOKENS,))
    ops.token_nll(hidden[None, :64], weight, targets[:64])  # the library's own buffers

    ours = measured("ops.token_nll", lambda: ops.token_nll(hidden[None], weight, targets)[0])
    full = measured(
        "full logits",
        lambda: torch.nn.functional.cross_entropy(
            (hidden @ weight.T).float(), targets, reduction="none"
        ),
    )
    print(f"largest difference {float((ours - full).abs().max()):.1e}")


if __name__ == "__main__":
    main()
