"""Time all-MiniLM-L6-v2 on real texts: the engine beside the loops that one would write.

python -m benchmarks.texts --rows 2000 [--budgets 1024 4096]

Processor time of each way in turns, one thread, which other processes of a machine disturb least;
scores are compared first. `lc-engine bench --model … --data …` gives wall times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lc_engine.backbone import tuning
from lc_engine.bench.jobs import own_job
from lc_engine.bench.language_data import labelled_texts, mini_lm
from lc_engine.bench.parity import compare
from lc_engine.bench.ways import BFLOAT16, ENGINE, ENGINE_BFLOAT16, NAIVE


def main() -> None:
    """Print processor seconds, and the ratios to the loops."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budgets", type=int, nargs="*", help="Tokens of a part, for the engine.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "texts.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in labelled_texts()))
        job = own_job(str(mini_lm()), data, rows=options.rows)
        ways = {way.name: way for way in job.ways}
        runs = {name: (name, tuning.TOKEN_BUDGET["cpu"]) for name in ways}
        if options.budgets:
            each = (
                (name, budget) for name in (ENGINE, ENGINE_BFLOAT16) for budget in options.budgets
            )
            runs = {f"{name}, {budget} tokens": (name, budget) for name, budget in each}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        reference = None
        for _ in range(options.rounds):
            for title, (name, budget) in runs.items():
                tuning.TOKEN_BUDGET["cpu"] = budget
                began = time.process_time()
                lc = ways[name].run(job.source, job.path)
                seconds[title].append(time.process_time() - began)
                reference = lc if reference is None else reference
                parity = compare(reference, lc, 0.1, ways[name].tolerance)
                if not parity.agrees:
                    raise SystemExit(f"{title}: {parity}")
    medians = {title: statistics.median(times) for title, times in seconds.items()}
    for title, median in medians.items():
        print(f"{title:>30} {median:8.2f} s")
    if not options.budgets:
        print(f"{ENGINE} ÷ {NAIVE}: {medians[NAIVE] / medians[ENGINE]:.2f} times faster")
        ratio = medians[BFLOAT16] / medians[ENGINE_BFLOAT16]
        print(f"{ENGINE_BFLOAT16} ÷ {BFLOAT16}: {ratio:.2f} times faster")


if __name__ == "__main__":
    main()
