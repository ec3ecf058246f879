"""Calibration: where along the capacities a model's confidence changes, measured on few rows.

A fixed range does not fit all models: over most of 2 % to 100 % a compact model is at chance, and
those sub-models add noise; a robust one loses nothing at half its weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine.backbone.early_exits import Exits
from lc_engine.data.wrap.cache import DecodedRows
from lc_engine.data.wrap.subset import ChosenRows
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.scorer.scorer import Scorer

# Capacities at which the curve is measured: denser near 1, where compact models fall.
GRID = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.4, 0.3, 0.2, 0.1, 0.02)

_SAMPLE_BYTES = 1 << 30


def calibrate(scorer: Scorer, data: Any, points: int = 8, samples: int = 256) -> LearningPath:
    """Place capacities at equal steps of a model's mean confidence, from the full model down.

    Args:
        scorer: its model, masking and head are used, its path is not; it is not changed. Where
            its head learns from the data and has not, it learns from the sample here.
        data: what `open_source` takes.
        points: K.
        samples: rows that are looked at, evenly spaced.

    Returns:
        A path "calibrated" with equal weights and the measured curve, which is saved with the
        scores.

    Raises:
        ValueError: exits, which have no capacity to choose; no row that can be scored.
    """
    if points < 1:
        raise ValueError(f"K must be at least 1, got {points}")
    log_probs = measure(scorer, data, samples, LearningPath.explicit(GRID))
    confidence = np.exp(log_probs).mean(1).tolist()
    return place(tuple(zip(GRID, confidence, strict=True)), points)


def measure(
    scorer: Scorer, data: Any, samples: int, path: LearningPath | None = None
) -> NDArray[np.float64]:
    """Give log p (K, M) of a sample of rows along a path, by default the scorer's own.

    Raises:
        ValueError: exits, whose points are theirs; no row that can be scored.
    """
    from lc_engine.data.open import open_source

    if isinstance(scorer.masking, Exits):
        raise ValueError("scorer: exits bring their own points; there is nothing to calibrate")
    whole = open_source(data, transform=scorer.transform)
    rows = np.linspace(0, len(whole) - 1, min(samples, len(whole))).round().astype(np.intp)
    # Read once: what is learnt and what is scored are the same rows.
    source = DecodedRows(ChosenRows(whole, rows), _SAMPLE_BYTES)
    measured = scorer if path is None else scorer.with_path(path)
    measured.check(source)
    measured = measured.fitted(source, None, samples, None)
    found = [measured.score_rows(batch).scores.log_probs for batch in source.batches(samples)]
    log_probs = torch.cat([part for part in found if part is not None], dim=1)
    scored = log_probs[:, log_probs.isfinite().all(0)]
    if not scored.shape[1]:
        raise ValueError(f"data: none of {len(source)} rows could be scored")
    return scored.double().numpy()


def place(curve: tuple[tuple[float, float], ...], points: int) -> LearningPath:
    """Place K capacities in the middle of K equal steps of confidence.

    Args:
        curve: pairs (capacity, mean confidence), capacities descending.
        points: K.

    Returns:
        A path with equal weights. Where the confidence does not fall at all, the capacities are
        evenly spaced.
    """
    capacities = np.array([r for r, _ in curve])
    # From the sparse end upwards the confidence should only rise; what falls again is noise.
    rising = np.maximum.accumulate(np.array([p for _, p in curve])[::-1])
    steps = rising[-1] - (np.arange(points) + 0.5) / points * (rising[-1] - rising[0])
    if rising[-1] > rising[0]:
        placed = np.interp(steps, rising, capacities[::-1])
    else:
        placed = np.linspace(capacities[0], capacities[-1], points)
    path = LearningPath.explicit(placed.clip(capacities[-1], capacities[0]).tolist())
    return replace(path, name="calibrated", curve=curve)
