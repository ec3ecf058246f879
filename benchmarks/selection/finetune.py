"""Real fine-tuning on the subsets: the MNIST network's last blocks, on Fashion-MNIST.

    python benchmarks/selection/finetune.py --cache DIR --out DIR/finetune.parquet

The first convolution is frozen (its maps are computed once); the second, the hidden layer and a new
classifier are trained by Adam, 1e-3, 150 steps of 32 rows, for every subset alike. Settings were
fixed beforehand; the test accuracy is that of the last step, on every fourth test image.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import backbones
import numpy as np
import settings
import torch
from evidence import Run
from features import Features
from tables import interval, markdown
from torch import Tensor, nn

from lc_engine._util.extras import require
from lc_engine.selection import choose_gamma, select

STEPS, BATCH, RATE = 150, 32, 1e-3
PER_CLASS = (3, 10)
SEEDS = 5
METHODS = ("random", "flexrand_0.5", "flexrand_auto", "easy_diverse", "herding")


def subset(run: Run, method: str, budget: int) -> np.ndarray:
    table = run.scores["calibrated"]
    if method == "flexrand_auto":
        gamma = choose_gamma(table, budget, features=run.features, seed=run.seed).gamma
        return select(table, budget, gamma=gamma, seed=run.seed)
    if method == "flexrand_0.5":
        return select(table, budget, gamma=0.5, seed=run.seed)
    return select(table, budget, method, features=run.features, seed=run.seed)


def train(tail: nn.Module, maps: Tensor, labels: Tensor, seed: int) -> None:
    """Train in place, for the same number of steps whatever the subset."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(tail.parameters(), lr=RATE)
    tail.train()
    for _ in range(STEPS):
        batch = torch.randint(len(maps), (min(BATCH, len(maps)),), generator=order)
        optimizer.zero_grad()
        nn.functional.cross_entropy(tail(maps[batch]), labels[batch]).backward()
        optimizer.step()


@torch.inference_mode()
def maps_of(body: backbones.Backbone, pixels: np.ndarray) -> Tensor:
    head = body.model[:3]
    return torch.cat([head(body.prepare(pixels[i : i + 256])) for i in range(0, len(pixels), 256)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = Features("cnn", "fashion", options.cache)
    body = backbones.load("cnn", options.cache)
    pool = maps_of(body, source.images.train)
    test, truth = maps_of(body, source.images.test[::4]), source.images.test_labels[::4]
    found: list[dict[str, Any]] = []
    for variant in ("plain", "noisy"):
        setting = settings.Setting("cnn", "fashion", variant)
        for seed in range(SEEDS):
            run = Run(source, setting, seed)
            rows = settings.draw(setting, source.images.train_labels, seed).rows
            for count in PER_CLASS:
                for method in METHODS:
                    kept = subset(run, method, 10 * count)
                    torch.manual_seed(seed)
                    tail = nn.Sequential(*backbones.load("cnn", options.cache).model[3:])
                    tail.append(nn.Linear(128, 10))
                    train(tail, pool[rows[kept]], torch.from_numpy(run.labels[kept]), seed)
                    with torch.inference_mode():
                        right = tail(test).argmax(1).numpy() == truth
                    found.append({"variant": variant, "per_class": count, "method": method,
                                  "seed": seed, "accuracy": 100 * float(right.mean())})  # fmt: skip
            print(setting, seed, flush=True)
    pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
    parquet.write_table(pa.Table.from_pylist(found), options.out)
    print(table(found))


def table(found: list[dict[str, Any]]) -> str:
    """Gap to random by method, variant and budget, with 95 % intervals over the seeds."""
    value = {(r["variant"], r["per_class"], r["method"], r["seed"]): r["accuracy"] for r in found}
    columns = [(variant, count) for variant in ("plain", "noisy") for count in PER_CLASS]
    base = [np.mean([value[(*c, "random", s)] for s in range(SEEDS)]) for c in columns]
    rows = [["random (accuracy)", *(f"{v:.1f}" for v in base)]]
    for method in METHODS[1:]:
        gaps = [
            interval([value[(*c, method, s)] - value[(*c, "random", s)] for s in range(SEEDS)])
            for c in columns
        ]
        rows.append([method, *map(str, gaps)])
    return markdown(["gap to random", *(f"{v}, {n} per class" for v, n in columns)], rows)


if __name__ == "__main__":
    main()
