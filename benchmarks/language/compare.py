"""The language scorer against a plain loop, on SmolLM2-135M and real instruction rows.

    python -m benchmarks.language.compare [--rows 36] [--rounds 3] [--json OUT]

The loop is what a user would write: float32, a row at a time, full logits, `log_softmax`, a forward
per sub-model. Engine and loop take turns in one process; medians are reported, with the largest
difference of any row's NLL under any sub-model. See `benchmarks.language.engine_and_loop`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

import lc_engine as lc
from benchmarks.language.engine_and_loop import compare_language
from lc_engine.bench.language_data import conversations, function_calls, smollm2

FAMILIES = {
    "9 dropout rates": ("dropout", lc.LearningPath.linear(9, 0.1, 0.9)),
    "3 magnitude capacities": ("magnitude", lc.LearningPath.linear(3, 0.7, 1.0)),
    "8 magnitude capacities": ("magnitude", lc.LearningPath.linear(8, 0.7, 1.0)),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="one line per comparison")
    asked = parser.parse_args()
    # A function call has more than twice the tokens of a conversation.
    sets = {
        "conversations": (conversations(), asked.rows),
        "function calls": (function_calls(), asked.rows // 3),
    }
    for data, (rows, count) in sets.items():
        chosen = np.random.default_rng(0).permutation(len(rows))[:count]
        few = [rows[i] for i in np.sort(chosen)]
        for name, (kind, path) in FAMILIES.items():
            found = compare_language(smollm2(), few, path, kind, asked.rounds)
            line = json.dumps({"data": data, "sub_models": name} | dataclasses.asdict(found))
            print(
                f"{data}, {name}: loop {found.tokens_per_second('loop'):.0f} tokens/s; engine "
                f"float32 {found.times_faster('float32'):.2f} x, {found.auto_dtype} "
                f"{found.times_faster('auto'):.2f} x; |d NLL| {found.nll_difference:.1e}, "
                f"padding {found.padding:.1%}, computed {found.computed:.0%}",
                flush=True,
            )
            if asked.json:
                with asked.json.open("a") as opened:
                    opened.write(line + "\n")


if __name__ == "__main__":
    main()
