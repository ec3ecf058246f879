"""Where the time of a pass of SmolLM2-135M goes: CPU time of each part, on real conversations.

    python -m benchmarks.language.shares [--rows 48] [--rounds 3] [--dtypes bfloat16 float32]

Questions and answers of chatterbot-corpus, several to a conversation of up to 256 tokens; three
magnitude capacities. The shares are of the process's CPU time, medians over the rounds; a part's
time is without that of the parts inside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch

import lc_engine as lc
from lc_engine import ops
from lc_engine.bench.language_data import conversations, smollm2
from lc_engine.language.model import LanguageModelSpec
from lc_engine.language.scorer import CausalLMScorer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_TOKENS = 256
PARTS = {
    "Linear": "products",
    "LlamaAttention": "rotary embedding, repeated heads, copies",
    "LlamaRMSNorm": "norms",
    "LlamaMLP": "gated activation",
    "LlamaDecoderLayer": "residual additions",
    "LlamaModel": "embedding, order of attention, calls",
}


class Clock:
    """CPU seconds of parts that call each other."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open = ["batches, sums"]
        self._since = time.process_time()

    def _switch(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def begin(self, part: str) -> None:
        self._switch()
        self._open.append(part)

    def end(self) -> None:
        self._switch()
        self._open.pop()

    def timed(self, part: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.begin(part)
            try:
                return run(*args, **kwargs)
            finally:
                self.end()

        return call


@contextmanager
def watched(model: torch.nn.Module) -> Iterator[Clock]:
    """Time the parts of a Llama, and the operators that the scorer calls."""
    clock, functional = Clock(), torch.nn.functional
    handles = []
    for module in model.get_decoder().modules():  # type: ignore[operator]
        part = PARTS.get(type(module).__name__)
        if part is not None:
            handles += [
                module.register_forward_pre_hook(lambda *_, part=part: clock.begin(part)),
                module.register_forward_hook(lambda *_: clock.end()),
            ]
    attention = clock.timed("attention", functional.scaled_dot_product_attention)
    head = clock.timed("vocabulary head", ops.token_nll)
    masks = clock.timed("masks", ops.apply_thresholds)
    with (
        mock.patch.object(functional, "scaled_dot_product_attention", attention),
        mock.patch.object(ops, "token_nll", head),
        mock.patch.object(ops, "apply_thresholds", masks),
    ):
        yield clock
    for handle in handles:
        handle.remove()
    clock.begin("")


def talks(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return conversations of one to some ten turns each."""
    generator, pairs = np.random.default_rng(seed), iter(conversations() * 8)
    rows = []
    for _ in range(count):
        some = [next(pairs) for _ in range(generator.integers(1, 9))]
        turns = [
            {"role": role, "content": pair[key]}
            for pair in some
            for role, key in (("user", "prompt"), ("assistant", "response"))
        ]
        rows.append({"messages": turns})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    asked = parser.parse_args()
    for dtype in asked.dtypes:
        scorer = CausalLMScorer(
            LanguageModelSpec(str(smollm2()), dtype),
            path=lc.LearningPath.linear(3, 0.7, 1.0),
            whole_model=False,
            max_tokens=MOST_TOKENS,
        )
        rows = talks(asked.rows)
        batch = next(scorer.transform.open_source(rows).batches(len(rows)))
        scorer.score_rows(batch)
        found = []
        for _ in range(asked.rounds):
            with watched(scorer.model) as clock:
                scorer.score_rows(batch)
            found.append(clock.seconds)
        tokens = sum(len(row.ids) for row in batch.inputs)
        whole = statistics.median(sum(seconds.values()) for seconds in found)
        print(f"{dtype}: {tokens} tokens, {whole / 3:.2f} s of CPU time a pass")
        medians = {
            part: statistics.median(seconds[part] / sum(seconds.values()) for seconds in found)
            for part in found[0]
        }
        for part, share in sorted(medians.items(), key=lambda pair: -pair[1]):
            print(f"  {share:6.1%} {part}")


if __name__ == "__main__":
    main()
