"""Choose 10 % of one large group by its features: time, peak memory and how both grow.

    python -m benchmarks.scale.select_features FOLDER --rows 10000 100000 1000000

Features are Gaussian mixtures of ten classes, a float16 memory map in FOLDER (0.8 GB for 10**6 rows
of 384; kept for the next run). Each choice runs in a process of its own, so that its peak memory is
its own.
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

CLASSES, WIDTH, PART_ROWS = 10, 384, 100_000
SPREAD = 0.08  # of the class means, in standard deviations: classes overlap


def make(file: Path, rows: int) -> None:
    """Write features (rows, WIDTH), a part at a time; row i is of class i modulo CLASSES."""
    rng = np.random.default_rng(0)
    means = SPREAD * rng.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    written = file.with_suffix(".part")
    out = np.lib.format.open_memmap(written, "w+", np.float16, (rows, WIDTH))
    for start in range(0, rows, PART_ROWS):
        part = np.arange(start, min(start + PART_ROWS, rows))
        noise = rng.normal(size=(len(part), WIDTH)).astype(np.float32)
        out[part] = means[part % CLASSES] + noise
    out.flush()
    written.rename(file)


def run(file: Path, strategy: str) -> dict[str, float]:
    """Select 10 % of one group."""
    from lc_engine.selection import select

    features = np.load(file, mmap_mode="r")
    rows = np.arange(len(features))
    loss = np.random.default_rng(1).random(len(rows), np.float32)
    scores = {"id": rows, "label": rows % CLASSES, "loss": loss, "lc": -loss, "lc_std": loss}
    began, cpu = time.perf_counter(), time.process_time()
    kept = select(scores, 0.1, strategy, by=None, features=features)
    found = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    return found | {"kept": len(kept), "peak": peak_bytes()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--strategy", nargs="+", default=["herding", "auto"])
    parser.add_argument("--part", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    files = {rows: asked.folder / f"features-{rows}.npy" for rows in asked.rows}
    if asked.part:
        print(json.dumps(run(files[asked.rows[0]], asked.strategy[0])))
        return
    module = "benchmarks.scale.select_features"
    command = [sys.executable, "-m", module, str(asked.folder), "--part"]
    for rows, file in files.items():
        if not file.exists():
            make(file, rows)
        for strategy in asked.strategy:
            one = [*command, "--rows", str(rows), "--strategy", strategy]
            done = subprocess.run(one, check=True, stdout=subprocess.PIPE)
            found = json.loads(done.stdout)
            print(
                f"{strategy}: {found['kept']:,} of {rows:,} rows in {found['cpu']:.1f} s of CPU "
                f"({found['seconds']:.1f} s), peak {found['peak'] / 2**30:.1f} GiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
