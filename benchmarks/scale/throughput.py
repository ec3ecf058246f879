"""Features of N x 128 float32 scored from files, beside the operator alone in memory.

    python -m benchmarks.scale.throughput FOLDER --rows 10000000 --classes 100

The files are made in FOLDER (5 GB each for 10**7 rows; kept for the next run). Every job runs in a
process of its own, so that its peak memory is its own; so does the operator, on 10**6 of the rows,
before and after each: a job is compared with the mean of the two.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lc_engine as lc
from lc_engine.ops import LinearPlan
from lc_engine.progress import peak_bytes

WIDTH = 128
BLOCK = 1 << 18
OPERATOR_ROWS = 10**6


def make(folder: Path, rows: int, classes: int) -> None:
    """Write features and labels as `.npy` and as Parquet, a block at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (folder / "x.parquet").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    kind = pa.schema([("emb", pa.list_(pa.float32(), WIDTH)), ("label", pa.int64())])
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, WIDTH))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.int64, (rows,))
    with pq.ParquetWriter(
        folder / "writing", kind, compression="none", use_dictionary=["label"]
    ) as writer:
        for start in range(0, rows, BLOCK):
            stop = min(start + BLOCK, rows)
            values = rng.standard_normal((stop - start, WIDTH), dtype=np.float32)
            labels = rng.integers(0, classes, stop - start)
            x[start:stop], y[start:stop] = values, labels
            lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), WIDTH)
            writer.write_table(pa.table([lists, pa.array(labels)], schema=kind))
    x.flush()
    y.flush()
    (folder / "writing").rename(folder / "x.parquet")


def head(classes: int) -> nn.Linear:
    """Make the head to score with."""
    torch.manual_seed(0)
    return nn.Linear(WIDTH, classes)


def operator(folder: Path, classes: int) -> dict[str, float]:
    """Time the operator alone on rows that lie in memory, in blocks of several sizes: the best."""
    x = torch.from_numpy(np.load(folder / "x.npy", mmap_mode="r")[:OPERATOR_ROWS].copy())
    y = torch.from_numpy(np.load(folder / "y.npy", mmap_mode="r")[:OPERATOR_ROWS].copy())
    module, path = head(classes), lc.LearningPath.gauss(8)
    thresholds = lc.Masking(weights="head").thresholds({"weight": module.weight}, path)[:, 0]
    weights = torch.tensor(path.weights, dtype=torch.float64)
    plan = LinearPlan(module.weight, module.bias, thresholds, path_weights=weights)
    best = 0.0
    for rows in (8192, 32768, 131072):
        plan(x[:rows], y[:rows], return_path=True)
        began = time.perf_counter()
        for start in range(0, len(x), rows):
            plan(x[start : start + rows], y[start : start + rows], return_path=True)
        best = max(best, len(x) / (time.perf_counter() - began))
    return {"rows_per_second": best}


def job(folder: Path, name: str, classes: int) -> dict[str, float]:
    """Score a file into a folder."""
    from lc_engine.data.sources import open_source

    labels = folder / "y.npy" if name == "x.npy" else None
    source = open_source(folder / name, labels=labels)
    masking = lc.Masking(weights="head")
    scorer = lc.Scorer(head(classes), head="linear", masking=masking)
    out = folder / f"scores-{name}"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    table = lc.score(scorer, source, out)
    seconds = time.perf_counter() - began
    assert table.status_counts() == {"ok": len(source)}
    return {"rows_per_second": len(source) / seconds, "peak_bytes": peak_bytes()}


def in_a_process(*arguments: str) -> dict[str, float]:
    """Run one part of this file in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale.throughput", *arguments],
        check=True,
        stdout=subprocess.PIPE,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10**7)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--part", choices=("operator", "x.npy", "x.parquet"))
    asked = parser.parse_args()
    folder = asked.folder / str(asked.rows)
    if asked.part == "operator":
        print(json.dumps(operator(folder, asked.classes)))
    elif asked.part:
        print(json.dumps(job(folder, asked.part, asked.classes)))
    else:
        make(folder, asked.rows, 10)
        common = (str(asked.folder), "--rows", str(asked.rows), "--classes", str(asked.classes))
        before = in_a_process(*common, "--part", "operator")["rows_per_second"]
        for name in ("x.npy", "x.parquet"):
            found = in_a_process(*common, "--part", name)
            after = in_a_process(*common, "--part", "operator")["rows_per_second"]
            rate, peak = found["rows_per_second"], found["peak_bytes"]
            print(
                f"{name}: {rate:,.0f} rows/s, {rate / ((before + after) / 2):.0%} of the operator "
                f"(before {before:,.0f}, after {after:,.0f}); peak {peak / 2**20:,.0f} MiB",
                flush=True,
            )
            before = after


if __name__ == "__main__":
    main()
