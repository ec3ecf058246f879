"""Seconds to import torch and then lc_engine: medians over fresh processes.

python -m benchmarks.imports
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

ROUNDS = 5
MODULES = ("torch", "lc_engine", "lc_engine.ops", "lc_engine.scorer.scorer")
PROGRAM = """
import json, sys, time
seconds = {}
for name in sys.argv[1:]:
    began = time.perf_counter()
    __import__(name)
    seconds[name] = time.perf_counter() - began
print(json.dumps(seconds))
"""


def measure() -> dict[str, float]:
    """Return the seconds of each import, in this order, in one fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *MODULES], check=True, capture_output=True, text=True
    )
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def main() -> None:
    measure()  # fills the file cache
    runs = [measure() for _ in range(ROUNDS)]
    print(f"seconds of imports in this order, medians of {ROUNDS} processes")
    for name in MODULES:
        print(f"{name:24}{statistics.median(run[name] for run in runs):8.3f}")


if __name__ == "__main__":
    main()
