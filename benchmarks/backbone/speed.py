"""Time the engine and the released code's way in turns, on picture files, and compare the scores.

python -m benchmarks.backbone.speed --model resnet18 --rows 256 --points 50 --out resnet18.json

The released way gets the number of workers that is fastest on the first sub-models. Every way
scores the same files; the engine's first score on a scorer (weights copied, batch norms folded,
dtype measured) is part of its time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, model, released_way, transform, write_pictures
from lc_engine.data.images import ImageFolder

SIDE = 224


def fastest_workers(name: str, folder: Path) -> int:
    """Choose the DataLoader's workers by the first two sub-models."""
    short = lc.LearningPath.geometric(2, 0.02)
    seconds = {}
    for workers in (0, 1, torch.get_num_threads()):
        began = time.perf_counter()
        released_way(name, folder, SIDE, short, workers)
        seconds[workers] = time.perf_counter() - began
    return min(seconds, key=seconds.__getitem__)


def engine(name: str, folder: Path, path: lc.LearningPath, dtype: str) -> lc.ScoreTable:
    scorer = lc.Scorer(model(name), path=path, dtype=dtype)
    return lc.score(scorer, ImageFolder(folder, transform(SIDE), None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    whole = lc.LearningPath.geometric(asked.points, 0.02)
    # Gauss points cost what fitted ones cost, but for the sample that fits them.
    some, few = (lc.LearningPath.geometric(50, 0.02).condensed(n) for n in (16, 8))
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_pictures(Path(scratch), asked.rows)
        name, workers = (
            asked.model,
            fastest_workers(asked.model, write_pictures(Path(scratch) / "few", 64)),
        )
        ways = {
            "released way": lambda: released_way(name, folder, SIDE, whole, workers).loss.numpy(),
            "float32": lambda: engine(name, folder, whole, "float32").column("loss"),
            "auto": lambda: engine(name, folder, whole, "auto").column("loss"),
            "auto, 16 points": lambda: engine(name, folder, some, "auto").column("loss"),
            "auto, 8 points": lambda: engine(name, folder, few, "auto").column("loss"),
        }
        losses: dict[str, np.ndarray] = {}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(asked.rounds):
            for way, run in ways.items():
                began = time.perf_counter()
                losses[way] = run()
                seconds[way].append(time.perf_counter() - began)
                print(f"{way}: {seconds[way][-1]:.1f} s", flush=True)
    median = {way: statistics.median(times) for way, times in seconds.items()}
    reference = losses["released way"]
    found = {
        "model": name,
        "rows": asked.rows,
        "points": asked.points,
        "workers of the released way": workers,
        "seconds": seconds,
        "released way ÷ engine": {w: median["released way"] / t for w, t in median.items()},
        "largest difference in loss": {
            w: float(np.abs(v - reference).max()) for w, v in losses.items() if "points" not in w
        },
        "Spearman with the released way": {
            w: float(stats.spearmanr(v, reference).statistic) for w, v in losses.items()
        },
    }
    text = json.dumps(found, indent=2, ensure_ascii=False)
    asked.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
