"""Whether a path says more than the whole model: the same selections by the scores of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.selection import settings
from benchmarks.selection.probes import Judge
from lc_engine.selection import select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.selection.features import Features

MAGNITUDE = ("full", "published magnitude", "calibrated magnitude")
MASKS = ("gauss magnitude", "calibrated random", "calibrated dropout")
CASES = {  # 40 more sub-models of EfficientNet-Lite0 take an hour
    ("lite0", "fashion"): MAGNITUDE,
    ("cnn", "digits"): (*MAGNITUDE, *MASKS, "exits"),
}
SHARES = (0.02, 0.1)
BY_SCORE: dict[str, dict[str, Any]] = {  # strategies that read the score, each once per draw
    "flexrand": {"gamma": 0.05},
    "easy_diverse": {},
    "herding": {"noise_guard": 0.1},
}
DRAWS = 3


def rows(
    source: Features, backbone: str, images: str, variant: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield one row per path, budget and strategy; without a budget that of the flipped labels."""
    from sklearn.metrics import roc_auc_score

    train, truth = source.of("train"), source.images.train_labels
    drawn = settings.draw(variant, truth, seed)
    features, wrong = train[drawn.rows], drawn.labels != truth[drawn.rows]
    judge = Judge(features, drawn.labels, source.of("test"), source.images.test_labels)
    all_budgets = settings.budgets(len(drawn.labels), len(np.unique(drawn.labels)))
    budgets = [(share, budget) for share, budget in all_budgets if share in SHARES]
    for path in CASES[backbone, images]:
        along, points = source.along(path)
        scores = settings.score_columns(along, points, train, drawn)
        if wrong.any():
            found = 100 * float(roc_auc_score(wrong, scores["loss"]))
            yield {"path": path, "keep": 0, "method": "AUROC", "accuracy": [found]}
        for share, budget in budgets:
            for strategy, more in BY_SCORE.items():
                draws = [
                    select(scores, budget, strategy, features=features, seed=seed + draw, **more)
                    for draw in range(DRAWS if strategy == "flexrand" else 1)
                ]
                accuracy = judge(draws)
                yield {"path": path, "keep": share, "method": strategy, "accuracy": accuracy}
