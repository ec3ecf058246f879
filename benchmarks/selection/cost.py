"""The cost of gamma="auto" and of scoring, in CPU seconds of one core, in one process.

python benchmarks/selection/cost.py --cache DIR
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import settings
import torch
from evidence import budgets
from features import Features, K
from tables import markdown
from threadpoolctl import threadpool_limits

from lc_engine.selection import choose_gamma

TIMED = 480  # images that the cost of scoring is extrapolated from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with threadpool_limits(1):
        for setting in settings.ALL:
            source = Features(setting.backbone, setting.images, options.cache)
            drawn = settings.draw(setting, source.images.train_labels, 0)
            scores = settings.score_columns(source, drawn, "full")
            features = source.at(1.0)[drawn.rows]
            source.compute(source.images.train[:TIMED], 1.0)
            started = time.process_time()
            source.compute(source.images.train[:TIMED], 1.0)
            scoring = K * len(drawn.rows) * (time.process_time() - started) / TIMED
            spent = []
            for _, budget in budgets(len(drawn.rows), len(np.unique(drawn.labels))):
                started = time.process_time()
                choose_gamma(scores, budget, features=features)
                spent.append(time.process_time() - started)
            figures = [f"{scoring:.1f}", f"{np.mean(spent):.2f}", f"{np.max(spent):.2f}"]
            figures += [f"{100 * f(spent) / scoring:.1f} %" for f in (np.mean, np.max)]
            rows.append([str(setting), str(len(drawn.rows)), *figures])
            print(setting, flush=True)
    header = ["setting", "rows", f"scoring, K = {K} (s)", "auto, mean over budgets (s)"]
    header += ["auto, most expensive budget (s)", "mean share", "largest share"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
