"""What the noise guard drops if 20 % of the labels are wrong.

    python benchmarks/selection/guard.py --cache DIR

Training rows only. The guard sorts rows by lc + lc_std; for comparison they are sorted by lc alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import settings
import torch
from features import Features
from tables import markdown

from lc_engine.selection.eligible import read_eligible_rows
from lc_engine.selection.noise_guard import drop_suspected_noise

SEEDS = range(5)
SHARES = (0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for backbone in ("cnn", "lite0"):
        setting = settings.Setting(backbone, "fashion", "noisy")
        source = Features(setting.backbone, setting.images, options.cache)
        truth = source.images.train_labels
        found = np.zeros((len(SEEDS), len(SHARES), 2))
        for seed in SEEDS:
            drawn = settings.draw(setting, truth, seed)
            wrong = drawn.labels != truth[drawn.rows]
            table = settings.score_columns(source, drawn, "calibrated")
            alone = table | {"lc_std": np.zeros(len(wrong))}
            for i, share in enumerate(SHARES):
                for j, columns in enumerate((table, alone)):
                    rows = read_eligible_rows(columns)
                    none = np.zeros(len(rows.group_names), dtype=np.int64)
                    remaining = drop_suspected_noise(rows, none, share)
                    found[seed, i, j] = wrong[np.setdiff1d(rows.ids, remaining.ids)].mean()
        for i, share in enumerate(SHARES):
            figures = [f"{100 * value:.0f} %" for value in found[:, i].mean(0)]
            lines.append([backbone, f"{100 * share:.0f} %", *figures])
    header = ["network", "dropped per class", "mislabeled, by lc + lc_std", "by lc alone"]
    print(markdown(header, lines))


if __name__ == "__main__":
    main()
