"""Time the engine and the released code in turns, on image files, and compare their scores.

python -m benchmarks.backbone.speed --model resnet18 --rows 256 --points 50 --out resnet18.json

Without --weights (a file of `benchmarks.backbone.pretrain`) all but EfficientNet-Lite0 have seeded
weights. The short paths (--few) are the Gauss points of the 50, or with --fitted those that a run
of `benchmarks.backbone.ranking` chose and wrote, so that choosing them is not part of the time.

The released code gets the number of workers that is fastest on the first sub-models. All ways score
the same files; the engine's time includes preparing a scorer (weights copied, batch norms folded,
dtype measured).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import stats

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, model, released_way, transform, write_images
from lc_engine.data.readers.images import ImageFolderSource

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 224


def fastest_workers(name: str, folder: Path, weights: Path | None) -> int:
    """Return the number of DataLoader workers that is fastest on two sub-models."""
    short = lc.LearningPath.geometric(2, 0.02)
    seconds = {}
    for workers in (0, 1, torch.get_num_threads()):
        began = time.perf_counter()
        released_way(name, folder, SIDE, short, workers, weights)
        seconds[workers] = time.perf_counter() - began
    return min(seconds, key=seconds.__getitem__)


def short_path(points: int, dtype: str, ranking: Path | None) -> lc.LearningPath:
    """Return Gauss points of the paper's path, or those fitted in a run of `ranking`.

    Those fitted in this dtype if the run has them, else in bfloat16.
    """
    if ranking is None:
        return lc.LearningPath.geometric(50, 0.02).condensed(points)
    ways = json.loads(ranking.read_text())["ways"]
    for way in (f"{points} fitted points, {dtype}", f"{points} fitted points, bfloat16"):
        if way in ways:
            return lc.LearningPath.from_dict(ways[way]["path"])
    raise SystemExit(f"{ranking} has no {way!r}, only {', '.join(ways)}")


def engine(
    name: str, folder: Path, path: lc.LearningPath, dtype: str, weights: Path | None = None
) -> lc.ScoreTable:
    scorer = lc.Scorer(model(name, weights, SIDE), path=path, dtype=dtype)
    return lc.score(scorer, ImageFolderSource(folder, transform(SIDE), None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--few", default="16,8", help="points of the short paths")
    parser.add_argument(
        "--dtypes", default="auto", help="of auto, bfloat16, int8; float32 always runs"
    )
    parser.add_argument("--fitted", type=Path, help="what a run of ranking wrote")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    whole = lc.LearningPath.geometric(asked.points, 0.02)
    few = [int(points) for points in asked.few.split(",")]
    dtypes = asked.dtypes.split(",")
    short = {
        f"{dtype}, {n} points": (short_path(n, dtype, asked.fitted), dtype)
        for dtype in dtypes
        for n in few
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_images(Path(scratch), asked.rows)
        name, weights = asked.model, asked.weights
        workers = fastest_workers(name, write_images(Path(scratch) / "few", 64), weights)

        def released() -> np.ndarray:
            return released_way(name, folder, SIDE, whole, workers, weights).loss.numpy()

        def ours(path: lc.LearningPath, dtype: str) -> np.ndarray:
            return engine(name, folder, path, dtype, weights).column("loss")

        ways: dict[str, Callable[[], np.ndarray]] = {
            "released way": released,
            "float32": partial(ours, whole, "float32"),
        }
        ways |= {dtype: partial(ours, whole, dtype) for dtype in dtypes}
        ways |= {way: partial(ours, path, dtype) for way, (path, dtype) in short.items()}
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
        "weights": weights and weights.name,
        "short paths": "fitted" if asked.fitted else "Gauss",
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
