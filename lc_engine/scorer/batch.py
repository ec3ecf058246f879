"""Scoring a batch of which any row may be bad: such a row keeps or gets a status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from lc_engine.data.batch import BAD_LABEL, NON_FINITE, NON_FINITE_OUTPUT, OK, Batch
from lc_engine.data.protocols import RowScores
from lc_engine.data.row_scores import Scored, columns, scatter
from lc_engine.data.sparse_texts import SparseTexts
from lc_engine.heads.base import Rows
from lc_engine.ops import PathScores
from lc_engine.scorer.adaptive import score_to_tolerance

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lc_engine.heads.base import Head
    from lc_engine.path.learning_path import LearningPath


def as_batch(inputs: Tensor, labels: Tensor) -> Batch:
    """Return inputs (B, …) and labels (B,) as a batch of rows that are ok.

    Raises:
        ValueError: labels that are not B integers.
    """
    samples = len(inputs)
    if labels.shape != (samples,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels must be integers of shape ({samples},), one per row of inputs, got "
            f"{labels.dtype} {tuple(labels.shape)}"
        )
    return Batch(
        ids=np.arange(samples),
        inputs=inputs,
        labels=labels.to("cpu", torch.int64),
        status=[OK] * samples,
        detail=[""] * samples,
    )


def score_rows(
    batch: Batch, head_for: Callable[[Tensor], Head], path: LearningPath, tol: float | None
) -> RowScores:
    """Score a batch.

    Args:
        batch: its inputs on the model's device.
        head_for: returns the head for inputs like these; not called where no row is ok.
        path: the K points of the head.
        tol: see `score_to_tolerance`; None runs every row along the whole path.

    Raises:
        ValueError: inputs that the model cannot take.
    """
    status, detail = SparseTexts.of(batch.status, OK), SparseTexts.of(batch.detail, "")
    # Rows are counted and picked by NumPy, or not at all where every one is ok: torch's threads
    # would spin beside those of the C++ core.
    scorable = np.ones(len(batch), dtype=bool)
    scorable[list(status.others)] = False
    ok = torch.from_numpy(np.flatnonzero(scorable))
    if len(ok) != len(batch.inputs):
        raise ValueError(
            f"batch.inputs must hold the {len(ok)} rows whose status is ok, got {len(batch.inputs)}"
        )
    rows, found = ok[:0], _no_rows(path, tol)
    if len(ok):
        inputs = batch.inputs
        with torch.inference_mode():
            head = head_for(inputs)
            labels = batch.labels if len(ok) == len(batch) else batch.labels[ok]
            rows, classes = ok, head.class_index(labels)
            known = torch.from_numpy(classes.numpy() >= 0)
            if not known.all():
                for i in ok[~known].tolist():
                    status[i], detail[i] = BAD_LABEL, head.reject_reason(int(batch.labels[i]))
                rows, classes = ok[known], classes[known]
                inputs = inputs[known.to(inputs.device)]
            if len(rows):
                ids = batch.ids[rows.numpy()]
                found = _scored(head, Rows(inputs, classes.to(inputs.device), ids), path, tol)
    lost = torch.from_numpy(~np.isfinite(found.columns.numpy()).all(0))
    if lost.any():
        for i in rows[lost].tolist():
            status[i], detail[i] = NON_FINITE, NON_FINITE_OUTPUT
        found = found.without(lost)
    lc, loss, lc_std = scatter(found.columns, rows, len(batch))
    scores = PathScores(lc, loss, scatter(found.log_probs, rows, len(batch)))
    extra = {name: scatter(part, rows, len(batch)) for name, part in found.extra.items()}
    return RowScores(scores, lc_std, status, detail, extra)


def _no_rows(path: LearningPath, tol: float | None) -> Scored:
    extra: dict[str, Tensor] = {}
    if tol is not None:
        extra = {"error": torch.empty(0), "points": torch.empty(0, dtype=torch.int64)}
    return Scored(torch.empty(3, 0), torch.empty(len(path), 0), extra)


def _scored(head: Head, rows: Rows, path: LearningPath, tol: float | None) -> Scored:
    if tol is None:
        return Scored(*columns(head.score(rows), path), {})
    return score_to_tolerance(head, rows, path, tol)
