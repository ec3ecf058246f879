"""What it costs to import lc_engine: medians over fresh processes, beside torch.

python -m benchmarks.imports
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

ROUNDS = 5
PROGRAM = """
import json, time
seconds = {}
for name in ("torch", "lc_engine", "lc_engine.ops", "lc_engine.scorer.scorer"):
    began = time.perf_counter()
    __import__(name)
    seconds[name] = time.perf_counter() - began
print(json.dumps(seconds))
"""


def main() -> None:
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True).stdout)
        for _ in range(ROUNDS + 1)
    ][1:]  # the first fills the file cache
    print(f"seconds of imports in this order, medians of {ROUNDS} processes")
    for name in runs[0]:
        print(f"{name:20}{statistics.median(run[name] for run in runs):8.3f}")


if __name__ == "__main__":
    main()
