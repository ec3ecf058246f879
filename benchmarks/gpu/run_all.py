"""Run all checks and timings of one device, and print one table.

    python -m benchmarks.gpu.run_all --data FOLDER --out FOLDER [--minutes 7.5]

Each step is a process of its own; none is begun that is expected to end after the time is spent,
and one that takes far longer is ended. The results are in `OUT/results.csv`, what the steps printed
in `OUT/*.log`. The status is 1 if a result is wrong or a step fails, and 2 without a device; steps
that there was no time for are named. `--rehearse` runs every step at tiny sizes on the CPU, with
the kernels interpreted.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.device import chosen_device, device_name

COLUMNS = ("step", "case", "way", "seconds", "times", "agreement")
# A step that takes so many times as long as is expected of it is ended.
PATIENCE = 2.5


@dataclass(frozen=True)
class Step:
    """A process.

    Attributes:
        name: of its log and its CSV.
        command: what follows `python -m`; "{csv}", "{data}" and "{tests}" are filled in.
        seconds: that it is expected to take on an H200.
    """

    name: str
    command: tuple[str, ...]
    seconds: float


def network(model: str, rows: int, points: int, seconds: float) -> Step:
    command = ("benchmarks.gpu.backbone", "--data", "{data}", "--csv", "{csv}", "--model", model)
    sizes = ("--rows", str(rows), "--points", str(points))
    return Step(f"{model}-{rows}", command + sizes, seconds)


# In the order of what one would miss most.
STEPS = (
    Step("tests", ("pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "{tests}"), 90),
    network("resnet18", 2048, 50, 40),
    Step("language", ("benchmarks.gpu.language", "--data", "{data}", "--csv", "{csv}"), 60),
    Step("operators", ("benchmarks.gpu", "--csv", "{csv}", "--minutes", "1.7"), 110),
    network("resnet18", 20_000, 16, 60),
    network("vit_tiny_patch16_224", 2048, 16, 35),
    network("vit_tiny_patch16_224", 20_000, 8, 60),
)
REHEARSED = (
    Step(
        "tests",
        ("pytest", "-q", "-p", "no:cacheprovider", "tests/_util/test_transfer.py"),
        60,
    ),
    Step(
        "resnet18-6",
        (
            "benchmarks.gpu.backbone", "--rehearse", "--data", "{data}", "--csv", "{csv}",
            "--model", "resnet18", "--rows", "6", "--points", "2", "--side", "32", "--batch", "4",
        ),
        60,
    ),
    Step(
        "language",
        ("benchmarks.gpu.language", "--rehearse", "--data", "{data}", "--csv", "{csv}", "--points",
         "2"),
        60,
    ),
    Step("operators", ("benchmarks.gpu", "--rehearse", "--csv", "{csv}"), 60),
)  # fmt: skip


def main() -> int:
    """Run the steps and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="of benchmarks.gpu.prepare")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--steps", nargs="+", help="names of those to run")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    asked = parser.parse_args()
    device = chosen_device(rehearse=asked.rehearse)
    if device is None:
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * asked.minutes
    failed, left_out, lines = [], [], []
    for step in REHEARSED if asked.rehearse else STEPS:
        if asked.steps and step.name not in asked.steps:
            continue
        remaining = end - time.monotonic()
        if remaining < step.seconds:
            left_out.append(step.name)
            continue
        print(f"{step.name} …", flush=True)
        reason = run(step, asked.data, asked.out, min(remaining, PATIENCE * step.seconds))
        if reason:
            failed.append(f"{step.name}: {reason}, see {asked.out / step.name}.log")
        lines += results_of(step, asked.out)
    with (asked.out / "results.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([COLUMNS, *lines])
    print(f"\n{device_name(device)}\n")
    print_table([COLUMNS, *lines])
    print(*(f"FAILED {line}" for line in failed), sep="\n")
    if left_out:
        print(f"no time for: {', '.join(left_out)}")
    return 1 if failed else 0


def run(step: Step, data: Path, out: Path, limit: float) -> str:
    """Run a step; return why it failed, "" if it did not."""
    known = {"{data}": [str(data)], "{csv}": [str(out / f"{step.name}.csv")]}
    known["{tests}"] = gpu_tests()
    filled = [part for name in step.command for part in known.get(name, [name])]
    interpreted = {"TRITON_INTERPRET": "1"} if "--rehearse" in filled else {}
    began = time.monotonic()
    with (out / f"{step.name}.log").open("w") as log:
        try:
            status = subprocess.run(
                [sys.executable, "-m", *filled],
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=limit,
                env=os.environ | interpreted,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"ended after {limit:.0f} s"
    print(f"  status {status} after {time.monotonic() - began:.0f} s", flush=True)
    return f"status {status}" if status else ""


def gpu_tests() -> list[str]:
    """Return the test files in which a test is marked `gpu`."""
    tests = Path(__file__).parents[2] / "tests"
    return sorted(str(path) for path in tests.rglob("test_*.py") if "mark.gpu" in path.read_text())


def results_of(step: Step, out: Path) -> list[tuple[str, ...]]:
    """Return the lines that a step, even one that did not end, adds to the table."""
    path = out / f"{step.name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return (_operators if step.name == "operators" else _networks)(step.name, rows)


def _networks(name: str, rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [
        (
            name, f"{row['rows']} rows, K = {row['points']}", row["way"],
            f"{float(row['seconds']):.3f}", f"{float(row['times']):.2f}",
            f"Spearman {float(row['spearman']):.5f}, difference {float(row['difference']):.0e}",
        )
        for row in rows
    ]  # fmt: skip


def _operators(name: str, rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    """Return a line per contender, with its speed relative to the naive loop of its case."""
    base = {
        (row["operator"], row["dtype"]): float(row["median_ms"])
        for row in rows
        if "loop" in row["provider"]
    }
    return [
        (
            name, f"{row['operator']} {row['dtype'].removeprefix('torch.')}", row["provider"],
            f"{float(row['median_ms']) / 1e3:.6f}",
            f"{base[row['operator'], row['dtype']] / float(row['median_ms']):.2f}",
            f"error {float(row['max_error']):.1e}",
        )
        for row in rows
    ]  # fmt: skip


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print lines in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
