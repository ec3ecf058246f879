"""Scoring a batch of which any row may be bad: such a row keeps or gets a status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from lc_engine.data.batch import BAD_LABEL, NON_FINITE, NON_FINITE_OUTPUT, OK, Batch
from lc_engine.data.features import of_batch
from lc_engine.data.protocols import RowScores
from lc_engine.data.row_scores import Scored, columns, scatter
from lc_engine.data.sparse_texts import SparseTexts
from lc_engine.heads.base import Rows
from lc_engine.ops import PathScores
from lc_engine.scorer.adaptive import score_to_tolerance
from lc_engine.scorer.whole_features import KeptFeatures

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
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
    batch: Batch,
    head_for: Callable[[Tensor], Head],
    path: LearningPath,
    tol: float | None,
    features: bool = False,
) -> RowScores:
    """Score a batch.

    Args:
        batch: its inputs on the model's device.
        head_for: returns the head for inputs like these; not called where no row is ok.
        path: the K points of the head.
        tol: see `score_to_tolerance`; None runs every row along the whole path.
        features: whether to return the whole model's features of rows that the head knows.

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
    whole: NDArray[np.float32] | None = None
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
                given = Rows(inputs, classes.to(inputs.device), ids)
                if features:
                    found, whole = _with_features(head, given, path, tol)
                else:
                    found = _scored(head, given, path, tol)
    lost = torch.from_numpy(~np.isfinite(found.columns.numpy()).all(0))
    if lost.any():
        for i in rows[lost].tolist():
            status[i], detail[i] = NON_FINITE, NON_FINITE_OUTPUT
        found = found.without(lost)
    lc, loss, lc_std = scatter(found.columns, rows, len(batch))
    scores = PathScores(lc, loss, scatter(found.log_probs, rows, len(batch)))
    extra = {name: scatter(part, rows, len(batch)) for name, part in found.extra.items()}
    if whole is not None:
        there = np.zeros(len(batch), bool)
        there[rows.numpy()] = True
        whole = of_batch(there, whole)
    return RowScores(scores, lc_std, status, detail, extra, whole)


def _no_rows(path: LearningPath, tol: float | None) -> Scored:
    extra: dict[str, Tensor] = {}
    if tol is not None:
        extra = {"error": torch.empty(0), "points": torch.empty(0, dtype=torch.int64)}
    return Scored(torch.empty(3, 0), torch.empty(len(path), 0), extra)


def _with_features(
    head: Head, rows: Rows, path: LearningPath, tol: float | None
) -> tuple[Scored, NDArray[np.float32]]:
    assert isinstance(head.views, KeptFeatures)
    head.views.keep(len(rows.classes))
    try:
        found = _scored(head, rows, path, tol)
        return found, head.views.kept(rows.inputs).float().cpu().numpy()
    finally:
        head.views.keep(0)


def _scored(head: Head, rows: Rows, path: LearningPath, tol: float | None) -> Scored:
    if tol is None:
        return Scored(*columns(head.score(rows), path), {})
    return score_to_tolerance(head, rows, path, tol)
