"""Select rows from a score table of 10**8 rows: time and peak memory.

    python -m benchmarks.scale.select_rows FOLDER --rows 100000000 --classes 1000

The table is made in FOLDER (2 GB for 10**8 rows; kept for the next run). Each selection runs in a
process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from lc_engine.scoring.progress import peak_bytes

PART_ROWS = 10**6


def make(folder: Path, rows: int, classes: int) -> None:
    """Write a table of random scores, a part at a time; classes are of very different sizes."""
    from lc_engine.data.table import ScoreTable

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.ones(classes))
    parts = -(-rows // PART_ROWS)
    for part in range(parts):
        ids = np.arange(part * PART_ROWS, min((part + 1) * PART_ROWS, rows))
        lc = rng.random(len(ids), np.float32)
        ScoreTable.from_arrays(
            ids=ids,
            labels=rng.choice(classes, len(ids), p=share),
            lc=lc,
            loss=-np.log(np.maximum(lc, 1e-6)) * rng.random(len(ids), np.float32),
            lc_std=lc / 4,
            status=["ok"] * len(ids),
            detail=[""] * len(ids),
            metadata={},
        ).write(folder / f"part-{part:05d}-of-{parts:05d}.parquet")


def run(folder: Path, strategy: str) -> dict[str, float]:
    """Select 10 %."""
    from lc_engine.selection.streamed import select_streamed

    options = {"gamma": 0.3} if strategy == "flexrand" else {}
    began = time.perf_counter()
    kept = select_streamed(folder, 0.1, strategy, **options)
    seconds = time.perf_counter() - began
    return {"kept": len(kept), "seconds": seconds, "peak_bytes": peak_bytes()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10**8)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--strategy", action="append")
    parser.add_argument("--part", action="store_true")
    asked = parser.parse_args()
    folder = asked.folder / f"table-{asked.rows}-{asked.classes}"
    strategies = asked.strategy or ["flexrand", "easy"]
    if asked.part:
        print(json.dumps(run(folder, strategies[0])))
        return
    if not folder.exists():
        make(folder, asked.rows, asked.classes)
    for strategy in strategies:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.scale.select_rows", str(asked.folder)),
                *("--rows", str(asked.rows), "--classes", str(asked.classes)),
                *("--strategy", strategy, "--part"),
            ],
            check=True,
            stdout=subprocess.PIPE,
        )
        found = json.loads(done.stdout)
        print(
            f"{strategy}: {found['kept']:,} of {asked.rows:,} rows in {found['seconds']:.1f} s, "
            f"peak {found['peak_bytes'] / 2**20:,.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
