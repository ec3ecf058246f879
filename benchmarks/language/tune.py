"""Measure the constants of `lc_engine.language.tuning` again, on SmolLM2-135M-Instruct.

    python -m benchmarks.language.tune TOKEN_BUDGET 512 2048
    python -m benchmarks.language.tune FORWARD_COST 16 256
    python -m benchmarks.language.tune HEAD_TOKENS 1 4096
    python -m benchmarks.language.tune LOWEST_CAPACITY 0.8 0.5

The present value is measured too. TOKEN_BUDGET, FORWARD_COST and HEAD_TOKENS: seconds of scoring
conversations with each value, in turns, medians. LOWEST_CAPACITY: perplexity of the responses at
each capacity, over that of the whole model, medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

import lc_engine as lc
from lc_engine._util.turns import in_turns
from lc_engine.bench.language_data import conversations, smollm2
from lc_engine.language import tuning
from lc_engine.language.model import LanguageModelSpec
from lc_engine.language.scorer import CausalLMScorer


def seconds(name: str, values: list[int], rows: list[Any], device: str, rounds: int) -> None:
    """Print the seconds of scoring rows with each value of a constant."""
    table, kind = getattr(tuning, name), "cpu" if device == "cpu" else "gpu"
    present = table[kind]
    spec = LanguageModelSpec(str(smollm2()), device=device)
    path = lc.LearningPath.linear(3, 0.7, 1.0)
    scorers = {}
    try:
        for value in (present, *values):
            table[kind] = value  # read when the scorer loads its model
            scorers[value] = CausalLMScorer(spec, path=path)
            lc.score(scorers[value], rows[:4], progress=False)
    finally:
        table[kind] = present
    taken: dict[int, list[float]] = {value: [] for value in scorers}
    for value in in_turns(scorers, rounds):
        began = time.perf_counter()
        lc.score(scorers[value], rows, progress=False)
        taken[value].append(time.perf_counter() - began)
    for value, times in taken.items():
        print(f"{name}[{kind!r}] = {value}: {statistics.median(times):.2f} s")


def perplexities(capacities: list[float], rows: list[Any], device: str) -> None:
    """Print the perplexity of responses at capacities, over that of the whole model."""
    path = lc.LearningPath.explicit([1.0, *sorted(capacities, reverse=True)])
    scorer = CausalLMScorer(LanguageModelSpec(str(smollm2()), device=device), path=path)
    log_probs = lc.score(scorer, rows, return_path=True, progress=False).column("path_log_probs")
    ratios = np.median(np.exp(log_probs[:, :1] - log_probs), axis=0)
    for capacity, ratio in zip(path.capacities, ratios, strict=True):
        print(f"capacity {capacity:g}: {ratio:.1f} times the perplexity of the whole model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "name", choices=("TOKEN_BUDGET", "FORWARD_COST", "HEAD_TOKENS", "LOWEST_CAPACITY")
    )
    parser.add_argument("values", nargs="+", type=float)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    every = conversations()
    chosen = np.sort(np.random.default_rng(0).permutation(len(every))[: asked.rows])
    rows = [every[i] for i in chosen]
    if asked.name == "LOWEST_CAPACITY":
        perplexities([tuning.LOWEST_CAPACITY, *asked.values], rows, asked.device)
    else:
        seconds(asked.name, [int(v) for v in asked.values], rows, asked.device, asked.rounds)


if __name__ == "__main__":
    main()
