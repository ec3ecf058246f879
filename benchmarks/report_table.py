"""Write the table of docs/report.md: size, time and memory of the page of a score folder.

    python -m benchmarks.report_table [--write docs/report.md] [--rows 1000,100000,10000000]

The scores are random, with a path of 8 points, in parts of 500,000 rows, and a subset keeps 10 %;
with features they have 64 columns and ten classes. The page is made by a process of its own, whose
time on the processor, time by the clock and greatest memory are given. Scores of 10⁷ rows with
features take 3 GB of disk while they are measured.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import lc_engine as lc
from lc_engine.data.features import features_path

_PART: Final = 500_000
_WIDTH: Final = 64
_CLASSES: Final = 10
_BEGIN: Final = "<!-- measured: written by `python -m benchmarks.report_table --write` -->"
_END: Final = "<!-- end of measured -->"
_MAKE: Final = "import sys, lc_engine as lc; lc.report(sys.argv[1], None, sys.argv[2], sys.argv[3])"


_PEAK: Final = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


class Cost(NamedTuple):
    """What a page took."""

    bytes: int
    processor: float
    wall: float
    peak: int


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path, help="the page whose table is replaced")
    parser.add_argument("--rows", default="1000,100000,10000000")
    asked = parser.parse_args()
    lines = ["| rows | features | page | CPU time | by the clock | peak memory |"]
    lines.append("|---|---|---|---|---|---|")
    for rows in map(int, asked.rows.split(",")):
        for width in (0, _WIDTH):
            with tempfile.TemporaryDirectory() as folder:
                cost = measured(Path(folder), rows, width)
            shown = f"{width} columns" if width else "none"
            lines.append(
                f"| {rows:,} | {shown} | {cost.bytes / 1e6:.1f} MB | {cost.processor:.0f} s | "
                f"{cost.wall:.0f} s | {cost.peak / 1e9:.2f} GB |"
            )
            print(lines[-1], flush=True)
    if asked.write is not None:
        page = asked.write.read_text(encoding="utf-8")
        table = "\n".join([_BEGIN, *lines, _END])
        made, count = re.subn(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", table, page, flags=re.S)
        if count != 1:
            raise SystemExit(f"{asked.write} has no place for the table: {_BEGIN} … {_END}")
        asked.write.write_text(made, encoding="utf-8")


def measured(folder: Path, rows: int, width: int) -> Cost:
    """Make scores, and their page in a process of its own."""
    scores = folder / "scores"
    write_scores(scores, rows, width)
    kept = folder / "kept.npy"
    np.save(kept, np.sort(np.random.default_rng(1).choice(rows, rows // 10, replace=False)))
    page = folder / "report.html"
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", f"{_MAKE}; {_PEAK}", scores, kept, page]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(page.stat().st_size, spent, time.perf_counter() - began, 1024 * int(found.stdout))


def write_scores(folder: Path, rows: int, width: int) -> None:
    """Write parts of random scores, with features beside them if there is a width."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    path = lc.LearningPath.gauss(8)
    weights = np.array(path.weights)
    centres = rng.standard_normal((_CLASSES, max(width, 1)))
    parts = -(-rows // _PART)
    for part in range(parts):
        ids = np.arange(part * _PART, min(rows, (part + 1) * _PART))
        p = np.clip(rng.random((len(ids), 1)) * rng.uniform(0.6, 1, (len(ids), 8)), 1e-4, 1)
        labels, mean = rng.integers(0, _CLASSES, len(ids)), p @ weights
        file = folder / f"part-{part:05d}-of-{parts:05d}.parquet"
        lc.ScoreTable.from_arrays(
            ids=ids,
            labels=labels,
            lc=mean.astype(np.float32),
            loss=(-np.log(p) @ weights).astype(np.float32),
            lc_std=np.sqrt(np.maximum(p**2 @ weights - mean**2, 0)).astype(np.float32),
            status=["ok"] * len(ids),
            detail=[""] * len(ids),
            metadata={"path": path.to_dict(), "head": {"kind": "linear"}},
            path_log_probs=np.log(p).astype(np.float32),
        ).write(file)
        if width:
            x = centres[labels] + rng.standard_normal((len(ids), width), np.float32)
            np.save(features_path(file), x.astype(np.float16))


if __name__ == "__main__":
    main()
