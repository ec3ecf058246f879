"""How well fewer points and bfloat16 rank, and what they cost: 2,000 digits at 96 px.

python -m benchmarks.backbone.ranking --rows 2000 --out ranking.json

Everything is compared with the 50 geometric capacities of the paper in float32, by the loss: the
rank correlation, and the share of the easiest and of the hardest tenth that is the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

import lc_engine as lc
from benchmarks.backbone.setup import model, transform, write_pictures
from lc_engine.data.images import ImageFolder

SIDE = 96
GEOMETRIC = lc.LearningPath.geometric(50, 0.02)
LOWEST = GEOMETRIC.capacities[-1]
# Of the rows, those that choose the points of a fitted path; it is timed with the scores.
SAMPLES = 128
# Path, or the number of points to be fitted; what the scorer is given besides.
WAYS: dict[str, tuple[lc.LearningPath | int, dict[str, object]]] = {
    "50 points, float32": (GEOMETRIC, {"dtype": "float32"}),
    "50 points, bfloat16": (GEOMETRIC, {"dtype": "bfloat16"}),
    "5 Gauss points, bfloat16": (GEOMETRIC.condensed(5), {"dtype": "bfloat16"}),
    "8 Gauss points, bfloat16": (GEOMETRIC.condensed(8), {"dtype": "bfloat16"}),
    "5 fitted points, bfloat16": (5, {"dtype": "bfloat16"}),
    "6 fitted points, bfloat16": (6, {"dtype": "bfloat16"}),
    "8 fitted points, bfloat16": (8, {"dtype": "bfloat16"}),
    "12 fitted points, bfloat16": (12, {"dtype": "bfloat16"}),
    "8 fitted points, float32": (8, {"dtype": "float32"}),
    "5 to 9 points, tol 0.0005": (
        lc.LearningPath.clenshaw_curtis(9, LOWEST, 1.0, "log"),
        {"dtype": "bfloat16", "tol": 0.0005},
    ),
}


def same_share(a: np.ndarray, b: np.ndarray, share: float) -> float:
    """Share of the lowest (share > 0) or the highest rows (share < 0) that two scores agree on."""
    count = round(abs(share) * len(a))
    tail = slice(None, count) if share > 0 else slice(-count, None)
    return len(np.intersect1d(np.argsort(a)[tail], np.argsort(b)[tail])) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    reference: np.ndarray | None = None
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_pictures(Path(scratch), asked.rows)
        for way, (path, more) in WAYS.items():
            source = ImageFolder(folder, transform(SIDE), None)
            whole = GEOMETRIC if isinstance(path, int) else path
            scorer = lc.Scorer(model("EfficientNet-Lite0"), path=whole, **more)
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
                "same easiest tenth": same_share(loss, reference, 0.1),
                "same hardest tenth": same_share(loss, reference, -0.1),
                "largest difference in loss": float(np.abs(loss - reference).max()),
            }
            if "points" in table.column_names:
                found[way]["points per row"] = float(table.column("points").mean())
            print(way, json.dumps(found[way]), flush=True)
    asked.out.write_text(json.dumps({"rows": asked.rows, "side": SIDE, "ways": found}, indent=2))


if __name__ == "__main__":
    main()
