"""What the strategies are tried on: an image set, what was done to its labels, and a seed.

Every seed has its own training set, up to 240 rows per class and 80 % of the pool, and its own
flipped labels. It is judged on the test images, or with `--held-out` on the rest of the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from benchmarks.selection.images import per_class
from lc_engine import ops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.path.learning_path import LearningPath

IMAGES = ("fashion", "mnist", "digits")
VARIANTS = ("plain", "flipped", "long tail")
POOL_SHARE, MOST_PER_CLASS = 0.8, 240
NOISE = 0.2
IMBALANCE = 100
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class Draw(NamedTuple):
    """One training set: rows of the pool and their labels, and the rows that it leaves out."""

    rows: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray


def draw(variant: str, labels: np.ndarray, seed: int) -> Draw:
    rng = np.random.default_rng([seed, 7])
    sizes = np.bincount(labels)
    classes = len(sizes)
    rows = per_class(labels, min(int(POOL_SHARE * sizes.min()), MOST_PER_CLASS), rng)
    held_out = np.setdiff1d(np.arange(len(labels)), rows)
    assigned = labels[rows]
    if variant == "flipped":
        flipped = rng.random(len(rows)) < NOISE
        shift = rng.integers(1, classes, len(rows))
        assigned = np.where(flipped, (assigned + shift) % classes, assigned)
    if variant == "long tail":
        largest = np.bincount(assigned).max()
        kept = np.zeros(len(rows), dtype=bool)
        for c in range(classes):
            count = max(1, round(largest * IMBALANCE ** (-c / (classes - 1))))
            kept[np.flatnonzero(assigned == c)[:count]] = True
        rows, assigned = rows[kept], assigned[kept]
    return Draw(rows, assigned, held_out)


def budgets(rows: int, classes: int) -> list[tuple[float, int]]:
    """Share and size of each subset that has at least one row per class."""
    return [(f, round(f * rows)) for f in FRACTIONS if round(f * rows) >= classes]


def log_probs(
    along: Sequence[np.ndarray], prototypes_of: np.ndarray | None, labels: np.ndarray
) -> np.ndarray:
    """log p(label) (K, N) by the library's default head under K sub-models, from features (N, D).

    Prototypes are class means of `prototypes_of`; None: of each sub-model's own features.
    """
    found = []
    for features in along:
        source = features if prototypes_of is None else prototypes_of
        means = np.stack([source[labels == c].mean(0) for c in range(labels.max() + 1)])
        scores = ops.prototype_confidence(
            torch.from_numpy(features[None]),
            torch.from_numpy(means),
            torch.from_numpy(labels),
            return_path=True,
            backend="reference",  # the same bits, and so the same ranks, on every machine
        )
        assert scores.log_probs is not None
        found.append(scores.log_probs[0].double().numpy())
    return np.stack(found)


def score_columns(
    along: Sequence[np.ndarray], path: LearningPath, whole: np.ndarray, drawn: Draw
) -> dict[str, np.ndarray]:
    """A training set's score table, as lc_engine makes it, from the pool's features."""
    own = [features[drawn.rows] for features in along]
    log_p = log_probs(own, None if path.name == "exits" else whole[drawn.rows], drawn.labels)
    weights = np.array(path.weights)[:, None]
    lc = (weights * np.exp(log_p)).sum(0)
    return {
        "id": np.arange(len(drawn.rows)),
        "label": drawn.labels,
        "lc": lc.astype(np.float32),
        "loss": -(weights * log_p).sum(0).astype(np.float32),
        "lc_std": np.exp(log_p).std(0).astype(np.float32),
    }
