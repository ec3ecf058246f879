"""The settings: a backbone, an image set and what was done to its labels, per seed.

Every seed has its own training set, 80 % of the pool, and its own flipped labels; all have the same
test set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from images import per_class

from lc_engine import ops

if TYPE_CHECKING:
    from features import Features

POOL_SHARE = 0.8
NOISE = 0.2
IMBALANCE = 100


class Setting(NamedTuple):
    backbone: str
    images: str
    variant: str  # "plain", "longtail" (100:1) or "noisy" (20 % of the labels flipped)

    def __str__(self) -> str:
        return f"{self.backbone} {self.images} {self.variant}"


ALL = (
    Setting("cnn", "fashion", "plain"),
    Setting("cnn", "fashion", "longtail"),
    Setting("cnn", "fashion", "noisy"),
    Setting("lite0", "fashion", "longtail"),
    Setting("lite0", "mnist", "plain"),
    Setting("lite0", "fashion", "noisy"),
    Setting("lite0", "fashion", "plain"),
)
# The MNIST network has seen the digits, so it never appears with them above: that pair and folds
# of the training images are where `lc_engine/selection/auto_gamma/constants.py` was settled.


class Draw(NamedTuple):
    """One training set: rows of the pool and their labels."""

    rows: np.ndarray
    labels: np.ndarray


def draw(setting: Setting, labels: np.ndarray, seed: int) -> Draw:
    rng = np.random.default_rng([seed, 7])
    sizes = np.bincount(labels)
    rows = per_class(labels, int(POOL_SHARE * sizes.min()), rng)
    assigned = labels[rows]
    if setting.variant == "noisy":
        classes = len(sizes)
        flipped = rng.random(len(rows)) < NOISE
        shift = rng.integers(1, classes, len(rows))
        assigned = np.where(flipped, (assigned + shift) % classes, assigned)
    if setting.variant == "longtail":
        classes = len(sizes)
        largest = np.bincount(assigned).max()
        kept = np.zeros(len(rows), dtype=bool)
        for c in range(classes):
            count = max(1, round(largest * IMBALANCE ** (-c / (classes - 1))))
            kept[np.flatnonzero(assigned == c)[:count]] = True
        rows, assigned = rows[kept], assigned[kept]
    return Draw(rows, assigned)


def score_columns(source: Features, drawn: Draw, path: str) -> dict[str, np.ndarray]:
    """Score a training set as lc_engine does: prototypes of the full model, K sub-models."""
    features = np.stack([source.at(capacity)[drawn.rows] for capacity in source.path(path)])
    classes = int(drawn.labels.max()) + 1
    means = np.stack([features[0][drawn.labels == c].mean(0) for c in range(classes)])
    scores = ops.prototype_confidence(
        torch.from_numpy(features),
        torch.from_numpy(means),
        torch.from_numpy(drawn.labels),
        return_path=True,
        backend="reference",  # the same bits, and so the same ranks, on every machine
    )
    assert scores.log_probs is not None
    p = scores.log_probs.double().exp().numpy()
    return {
        "id": np.arange(len(drawn.rows)),
        "label": drawn.labels,
        "lc": scores.lc.numpy(),
        "loss": scores.loss.numpy(),
        "lc_std": p.std(0).astype(np.float32),
    }
