"""Rankings by fewer points and by other dtypes, and their cost: 2,000 digits at 96 px.

python -m benchmarks.backbone.ranking --rows 2000 --out ranking.json
python -m benchmarks.backbone.ranking --model resnet18 --weights resnet18.safetensors --out r18.json

--weights is a file of `benchmarks.backbone.pretrain`: a ranking by seeded weights means little.
--ways selects ways by a part of their name (from the beginning of a word on, so that "6 fitted" is
not "16 fitted"). The points of fitted paths are written for `speed --fitted`.

Losses are compared with those of the paper's 50 geometric capacities in float32: by rank
correlation, and by the share of the easiest and of the hardest 10 % of rows that is the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, TRAINED_SIDE, model, transform, write_images
from lc_engine.data.readers.images import ImageFolderSource

GEOMETRIC = lc.LearningPath.geometric(50, 0.02)
LOWEST = GEOMETRIC.capacities[-1]
# Rows that choose the points of a fitted path; fitting is part of the time.
SAMPLES = 128
REFERENCE = "50 points, float32"
# Path, or number of points to fit; further options of the scorer.
WAYS: dict[str, tuple[lc.LearningPath | int, dict[str, object]]] = {
    REFERENCE: (GEOMETRIC, {"dtype": "float32"}),
    "50 points, bfloat16": (GEOMETRIC, {"dtype": "bfloat16"}),
    "50 points, int8": (GEOMETRIC, {"dtype": "int8"}),
    "5 Gauss points, bfloat16": (GEOMETRIC.condensed(5), {"dtype": "bfloat16"}),
    "8 Gauss points, bfloat16": (GEOMETRIC.condensed(8), {"dtype": "bfloat16"}),
    "3 fitted points, bfloat16": (3, {"dtype": "bfloat16"}),
    "4 fitted points, bfloat16": (4, {"dtype": "bfloat16"}),
    "5 fitted points, bfloat16": (5, {"dtype": "bfloat16"}),
    "6 fitted points, bfloat16": (6, {"dtype": "bfloat16"}),
    "8 fitted points, bfloat16": (8, {"dtype": "bfloat16"}),
    "10 fitted points, bfloat16": (10, {"dtype": "bfloat16"}),
    "12 fitted points, bfloat16": (12, {"dtype": "bfloat16"}),
    "16 fitted points, bfloat16": (16, {"dtype": "bfloat16"}),
    "8 fitted points, float32": (8, {"dtype": "float32"}),
    "4 fitted points, int8": (4, {"dtype": "int8"}),
    "6 fitted points, int8": (6, {"dtype": "int8"}),
    "8 fitted points, int8": (8, {"dtype": "int8"}),
    "16 fitted points, int8": (16, {"dtype": "int8"}),
    "5 to 9 points, tol 0.0005": (
        lc.LearningPath.clenshaw_curtis(9, LOWEST, 1.0, "log"),
        {"dtype": "bfloat16", "tol": 0.0005},
    ),
}


def same_share(a: np.ndarray, b: np.ndarray, share: float) -> float:
    """Return the share of the lowest (share > 0) or highest (< 0) rows that two scores agree on."""
    count = round(abs(share) * len(a))
    tail = slice(None, count) if share > 0 else slice(-count, None)
    return len(np.intersect1d(np.argsort(a)[tail], np.argsort(b)[tail])) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--side", type=int, default=TRAINED_SIDE)
    parser.add_argument("--ways", nargs="+", default=[""], help="in addition to the reference")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    # The reference always comes first.
    ways = {
        way: made
        for way, made in WAYS.items()
        if way == REFERENCE or any(f" {part}" in f" {way}" for part in asked.ways)
    }
    if len(ways) == 1 and asked.ways != [REFERENCE]:
        parser.error(f"--ways: no name has one of {asked.ways}; there are {', '.join(WAYS)}")
    found: dict[str, dict[str, Any]] = {}
    reference: np.ndarray | None = None
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_images(Path(scratch), asked.rows)
        for way, (path, more) in ways.items():
            source = ImageFolderSource(folder, transform(asked.side), None)
            whole = GEOMETRIC if isinstance(path, int) else path
            network = model(asked.model, asked.weights, asked.side)
            scorer = lc.Scorer(network, path=whole, **more)
            began = time.perf_counter()
            if isinstance(path, int):
                scorer = scorer.with_path(lc.LearningPath.fitted(scorer, source, path, SAMPLES))
            table = lc.score(scorer, source)
            seconds = time.perf_counter() - began
            loss = table.column("loss").astype(np.float64)
            reference = loss if reference is None else reference
            found[way] = {
                "seconds": seconds,
                "Spearman": float(stats.spearmanr(loss, reference).statistic),
                "same easiest 10 %": same_share(loss, reference, 0.1),
                "same hardest 10 %": same_share(loss, reference, -0.1),
                "largest difference in loss": float(np.abs(loss - reference).max()),
            }
            if "points" in table.column_names:
                found[way]["points per row"] = float(table.column("points").mean())
            print(way, json.dumps(found[way]), flush=True)
            found[way]["path"] = scorer.path.to_dict()
    made = {
        "model": asked.model,
        "weights": asked.weights and asked.weights.name,
        "rows": asked.rows,
        "side": asked.side,
        "ways": found,
    }
    asked.out.write_text(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
