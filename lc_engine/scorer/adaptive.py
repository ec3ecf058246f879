"""Adaptive scoring: points are added to a row's path until its error estimate meets a tolerance.

A Clenshaw-Curtis path holds coarser rules of the same mean. The error of a score is estimated
by its change when the points were doubled, which is the error of the coarser rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from lc_engine.data.row_scores import Scored
from lc_engine.path.reduction import reduce_path

if TYPE_CHECKING:
    from lc_engine.heads.base import Head, Rows
    from lc_engine.path.learning_path import LearningPath


def score_to_tolerance(head: Head, rows: Rows, path: LearningPath, tol: float) -> Scored:
    """Score rows, each with as many of the path's nested points as it needs.

    Args:
        head: returns log p.
        rows: N rows.
        path: a Clenshaw-Curtis path.
        tol: upper bound of the error estimate of lc; a row may miss it with all points.

    Returns:
        Scores with log p (K, N), NaN where sub-model k was not run for the row, and the columns
        `error` (N,), the estimate of the error in lc, and `points` (N,), sub-models that were run.
    """
    samples = len(rows.classes)
    log_probs = np.full((len(path), samples), np.nan, np.float32)
    columns = np.full((3, samples), np.nan)
    error = np.full(samples, np.inf)
    points = np.zeros(samples, np.int64)
    done: set[int] = set()
    active = np.arange(samples)
    for level, (indices, weights) in enumerate(path.levels()):
        new = [k for k in indices if k not in done]
        done.update(new)
        found = head.log_probs(rows[torch.from_numpy(active)], new)
        log_probs[np.array(new)[:, None], active] = found.float().cpu().numpy()
        seen = log_probs[list(indices)][:, active].astype(np.float64)
        reduced = np.stack(reduce_path(seen, weights))
        if level:
            error[active] = np.abs(reduced[0] - columns[0, active])
        columns[:, active] = reduced
        points[active] = len(indices)
        # More points do not help a row without a finite score.
        active = active[(error[active] > tol) & np.isfinite(reduced[0])]
        if not len(active):
            break
    return Scored(
        torch.from_numpy(columns).float(),
        torch.from_numpy(log_probs),
        {"error": torch.from_numpy(error).float(), "points": torch.from_numpy(points)},
    )
