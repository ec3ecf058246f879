"""Kill `lc-engine score` (kill -9) repeatedly, and continue it each time.

    python -m benchmarks.scale.kill FOLDER --kills 20

Every few kills the run is left to end and its part files are compared, byte for byte, with those of
an undisturbed run; then a fresh folder is begun. A line per kill says how much was there.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

ROWS, WIDTH, CLASSES = 400_000, 128, 100
SHARD_ROWS = 1000
KILLS_PER_FOLDER = 4


def make(folder: Path) -> None:
    """Write features, labels and a linear head."""
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.standard_normal((ROWS, WIDTH), dtype=np.float32))
    np.save(folder / "y.npy", rng.integers(0, CLASSES, ROWS))
    weight = torch.from_numpy(rng.standard_normal((CLASSES, WIDTH)).astype(np.float32))
    save_file({"weight": weight, "bias": torch.zeros(CLASSES)}, folder / "head.safetensors")


def begin(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start the command."""
    return subprocess.Popen(
        [
            *(sys.executable, "-c", "from lc_engine.cli.main import main; main()", "score"),
            *("--model", str(folder / "head.safetensors"), "--data", str(folder / "x.npy")),
            *("--labels", str(folder / "y.npy"), "--out", str(out)),
            *("--shard-rows", str(SHARD_ROWS), "--json"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def finish(folder: Path, out: Path) -> float:
    """Wait for the command to end; return the seconds since it created its folder."""
    process = begin(folder, out)
    while not out.exists():
        time.sleep(0.01)
    began = time.monotonic()
    if process.wait():
        raise SystemExit(f"lc-engine score ended with {process.returncode}")
    return time.monotonic() - began


def kill_once(folder: Path, out: Path, moment: float) -> str:
    """Kill the command `moment` seconds after it started to work; return what it left."""
    fresh = not out.exists()
    process = begin(folder, out)
    if fresh:
        while not out.exists():
            time.sleep(0.002)
    else:
        before = len(list(out.glob("part-*.parquet")))
        while len(list(out.glob("part-*.parquet"))) == before and process.poll() is None:
            time.sleep(0.002)
    time.sleep(moment)
    process.kill()
    process.wait()
    left = [path.suffix for path in out.iterdir()]
    return ", ".join(f"{left.count(kind)} {kind}" for kind in sorted(set(left)))


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != "_config.json"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = asked.folder
    folder.mkdir(parents=True)
    make(folder)
    seconds = finish(folder, folder / "undisturbed")
    want = parts(folder / "undisturbed")
    print(f"undisturbed: {len(want)} files in {seconds:.1f} s", flush=True)
    draw = random.Random(asked.seed)
    for number in range(asked.kills):
        out = folder / f"killed-{number // KILLS_PER_FOLDER}"
        moment = draw.random() * seconds / (KILLS_PER_FOLDER + 3)
        print(
            f"kill {number + 1} after {moment:.2f} s: {kill_once(folder, out, moment)}", flush=True
        )
        if (number + 1) % KILLS_PER_FOLDER == 0 or number + 1 == asked.kills:
            finish(folder, out)
            if parts(out) != want:
                raise SystemExit(f"{out} differs from the undisturbed run")
            print(f"{out.name}: the same {len(want)} files, byte for byte", flush=True)
            shutil.rmtree(out)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
