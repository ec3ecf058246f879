"""Blobs with some labels flipped, for the trials that choose a strategy or γ."""

from __future__ import annotations

from typing import Any

import numpy as np


def flipped_blobs(
    seed: int, samples: int, classes: int, width: int = 8, flipped: float = 0.3
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return scores whose loss is high where the label is flipped, features, and the flags."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, samples)
    centers = 3 * np.random.default_rng(99).standard_normal((classes, width))
    features = centers[truth] + rng.standard_normal((samples, width))
    wrong = rng.random(samples) < flipped
    labels = np.where(wrong, (truth + rng.integers(1, classes, samples)) % classes, truth)
    loss = np.linalg.norm(features - centers[labels], axis=1)
    scores = {"id": rng.permutation(samples), "label": labels, "loss": loss}
    return scores, features.astype(np.float32), wrong
