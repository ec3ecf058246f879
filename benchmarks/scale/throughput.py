"""Score features (N, 128) in float32 from files, beside the operator alone on rows in memory.

    python -m benchmarks.scale.throughput FOLDER --rows 1000000 --classes 100 --runs 3

The files are made in FOLDER (5 GB each for 10**7 rows; kept for the next run). For each file one
process runs the operator and the job by turns, after a run of each that is not counted: the same
plan, batch size and threads. The operator's rows, 10**6 of them, lie in memory. Another process
runs the job alone, for its peak memory. Medians are given; processor time is that of all threads,
so it says the same on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

import lc_engine as lc
from lc_engine.data.open import open_source
from lc_engine.ops import LinearPlan
from lc_engine.scoring.progress import peak_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 128
BLOCK = 1 << 18
OPERATOR_ROWS = 10**6
FILES = ("x.npy", "x.parquet")


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
    """Return the head to score with."""
    torch.manual_seed(0)
    return nn.Linear(WIDTH, classes)


def operator(folder: Path, classes: int, path: lc.LearningPath) -> Callable[[], int]:
    """Return a function that scores rows in memory, in the batches of a job."""
    x = torch.from_numpy(np.load(folder / "x.npy", mmap_mode="r")[:OPERATOR_ROWS].copy())
    y = torch.from_numpy(np.load(folder / "y.npy", mmap_mode="r")[:OPERATOR_ROWS].copy())
    module = head(classes)
    thresholds = lc.Masking(weights="head").thresholds({"weight": module.weight}, path)[:, 0]
    weights = torch.tensor(path.weights, dtype=torch.float64)
    plan = LinearPlan(module.weight, module.bias, thresholds, path_weights=weights)
    rows = open_source(folder / "x.npy", labels=folder / "y.npy").batch_rows

    def run() -> int:
        for start in range(0, len(x), rows):
            plan(x[start : start + rows], y[start : start + rows], return_path=True)
        return len(x)

    return run


def job(folder: Path, name: str, classes: int, path: lc.LearningPath) -> Callable[[], int]:
    """Return a function that scores a file into a folder."""

    def run() -> int:
        labels = folder / "y.npy" if name == "x.npy" else None
        source = open_source(folder / name, labels=labels)
        masking = lc.Masking(weights="head")
        scorer = lc.Scorer(head(classes), head="linear", masking=masking, path=path)
        out = folder / f"scores-{name}"
        shutil.rmtree(out, ignore_errors=True)
        table = lc.score(scorer, source, out)
        assert len(table) == len(source)
        return len(source)

    return run


def timed(run: Callable[[], int]) -> tuple[float, float]:
    """Return microseconds per row: processor time and wall time."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    rows = run()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return used / rows * 1e6, wall / rows * 1e6


def compare(folder: Path, name: str, classes: int, path: lc.LearningPath, runs: int) -> str:
    """Run operator and job in turns; return the times of each as text."""
    alone, whole = operator(folder, classes, path), job(folder, name, classes, path)
    alone()
    job(folder.parent / str(OPERATOR_ROWS), name, classes, path)()  # imports, and the disk's cache
    taken: dict[str, list[tuple[float, float]]] = {"operator": [], "job": []}
    for _ in range(runs):
        taken["operator"].append(timed(alone))
        taken["job"].append(timed(whole))
    taken["operator"].append(timed(alone))
    middle = {
        part: [median(times) for times in zip(*took, strict=True)] for part, took in taken.items()
    }
    return "; ".join(
        f"{what}: operator {middle['operator'][i]:.3f} us/row, job {middle['job'][i]:.3f}, "
        f"{middle['operator'][i] / middle['job'][i]:.0%}"
        for i, what in enumerate(("processor", "clock"))
    )


def in_a_process(*arguments: str) -> str:
    """Run one part of this file in its own process; return what it prints."""
    command = [sys.executable, "-m", "benchmarks.scale.throughput", *arguments]
    return str(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10**7)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--path", default="gauss:8", help="as the command line writes it")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--file", choices=FILES)
    parser.add_argument("--part", choices=("compare", "peak"))
    asked = parser.parse_args()
    folder, path = asked.folder / str(asked.rows), lc.LearningPath.parse(asked.path)
    if asked.part == "compare":
        print(json.dumps(compare(folder, asked.file, asked.classes, path, asked.runs)))
    elif asked.part:
        job(folder, asked.file, asked.classes, path)()
        print(json.dumps(f"peak {peak_bytes() / 2**20:,.0f} MiB"))
    else:
        for rows in {OPERATOR_ROWS, asked.rows}:
            make(asked.folder / str(rows), rows, 10)
        for name in (asked.file,) if asked.file else FILES:
            for part in ("compare", "peak"):
                found = in_a_process(*sys.argv[1:], "--file", name, "--part", part)
                print(f"{name}: {found}", flush=True)


if __name__ == "__main__":
    main()
