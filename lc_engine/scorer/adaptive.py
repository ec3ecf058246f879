"""Adaptive scoring: points are added to a row's path until its error estimate meets a tolerance.

A Clenshaw-Curtis path holds coarser rules of the same mean. The error of a score is estimated by
how far it moved when the points were doubled, which is the error of the coarser rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.heads.base import Head, Rows
    from lc_engine.path.learning_path import LearningPath


class AdaptiveScores(NamedTuple):
    """Scores of N rows, each over the points it needed.

    Attributes:
        columns: (3, N) lc, loss and lc_std.
        log_probs: (K, N) log p_k, NaN where sub-model k was not run for the row.
        error: (N,) the estimate of the error in lc.
        points: (N,) int64, sub-models that were run.
    """

    columns: Tensor
    log_probs: Tensor
    error: Tensor
    points: Tensor


def score_to_tolerance(head: Head, rows: Rows, path: LearningPath, tol: float) -> AdaptiveScores:
    """Score rows, each with as many of the path's nested points as it needs.

    Args:
        head: gives log p.
        rows: N rows.
        path: a Clenshaw-Curtis path.
        tol: of the error estimate of lc; rows that do not meet it with all points keep theirs.
    """
    samples = len(rows.classes)
    device = rows.classes.device
    log_probs = torch.full((len(path), samples), torch.nan, device=device)
    columns = torch.full((3, samples), torch.nan, dtype=torch.float64, device=device)
    error = torch.full((samples,), torch.inf, dtype=torch.float64, device=device)
    points = torch.zeros(samples, dtype=torch.int64, device=device)
    done: set[int] = set()
    active = torch.arange(samples, device=device)
    for level, (places, weights) in enumerate(path.levels()):
        new = [k for k in places if k not in done]
        done.update(new)
        found = head.log_probs(rows[active], new)
        log_probs[torch.tensor(new, device=device)[:, None], active] = found.float()
        omega = torch.tensor(weights, dtype=torch.float64, device=device).unsqueeze(1)
        log_p = log_probs[list(places)][:, active].double()
        p = log_p.exp()
        lc = (omega * p).sum(0)
        spread = (omega * (p - lc).square()).sum(0).sqrt()
        if level:
            error[active] = (lc - columns[0, active]).abs()
        columns[:, active] = torch.stack([lc, -(omega * log_p).sum(0), spread])
        points[active] = len(places)
        # A row without a finite score is not helped by more points.
        active = active[(error[active] > tol) & lc.isfinite()]
        if not len(active):
            break
    return AdaptiveScores(columns, log_probs, error, points)
