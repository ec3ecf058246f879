"""Scoring a batch of which any row may be bad: such a row keeps or gets a status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine.data.batch import BAD_LABEL, NO_LABEL, NON_FINITE, NON_FINITE_OUTPUT, OK, Batch
from lc_engine.data.features import of_batch
from lc_engine.data.fields import Fields, as_tensors
from lc_engine.data.protocols import RowScores
from lc_engine.data.row_scores import Scored, columns, scatter
from lc_engine.data.sparse_texts import SparseTexts
from lc_engine.data.targets import OWN_TARGETS, read_label
from lc_engine.heads.base import Rows
from lc_engine.heads.labels import AGREEMENT
from lc_engine.ops import PathScores
from lc_engine.scorer.adaptive import score_to_tolerance
from lc_engine.scorer.whole_features import KeptFeatures

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from lc_engine.data.fields import Inputs
    from lc_engine.data.targets import LabelKind
    from lc_engine.heads.base import Head
    from lc_engine.path.learning_path import LearningPath
    from lc_engine.scorer.head_config import Labels


def as_batch(inputs: Any, labels: Any, kind: LabelKind = "class") -> Batch:
    """Return inputs (B, …) and labels as a batch of rows that are ok.

    Args:
        inputs: a tensor, or a mapping of tensors.
        labels: (B,) integers; of another kind B targets, a tensor (B, …) or a mapping of such.
        kind: of the labels; of "none" they are not read.

    Raises:
        ValueError: labels that are not B integers, or not B targets.
    """
    if isinstance(inputs, Mapping):
        inputs = Fields(as_tensors(inputs))
    samples = len(inputs)
    if kind in OWN_TARGETS:
        return _with_targets(inputs, as_tensors(labels), kind)
    if kind == "none":
        labels = torch.full((samples,), NO_LABEL)
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


def _with_targets(inputs: Inputs, targets: Any, kind: LabelKind) -> Batch:
    samples = len(inputs)
    if isinstance(targets, dict):
        names = list(targets)
        rows = zip(*(targets[name] for name in names), strict=True)
        each: list[Any] = [dict(zip(names, row, strict=True)) for row in rows]
    else:
        each = list(targets)
    if len(each) != samples:
        raise ValueError(f"targets must be {samples}, one per row of inputs, got {len(each)}")
    read = [read_label(kind, target, None) for target in each]
    return Batch(
        ids=np.arange(samples),
        inputs=inputs[torch.tensor([not one.complaint for one in read])],
        labels=torch.tensor([one.number for one in read], dtype=torch.int64),
        status=[BAD_LABEL if one.complaint else OK for one in read],
        detail=[one.complaint for one in read],
        targets=[one.target for one in read if not one.complaint],
    )


def score_rows(
    batch: Batch,
    head_for: Callable[[Inputs], Head],
    path: LearningPath,
    tol: float | None,
    features: bool = False,
    labels: Labels = "class",
) -> RowScores:
    """Score a batch.

    Args:
        batch: its inputs on the model's device.
        head_for: returns the head for inputs like these; not called where no row is ok.
        path: the K points of the head.
        tol: see `score_to_tolerance`; None runs every row along the whole path.
        features: whether to return the whole model's features of rows that the head knows.
        labels: see `Scorer`.

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
    rows, found = ok[:0], _no_rows(path, tol, labels)
    whole: NDArray[np.float32] | None = None
    if len(ok):
        inputs = batch.inputs
        with torch.inference_mode():
            head = head_for(inputs)
            own = batch.labels if len(ok) == len(batch) else batch.labels[ok]
            rows, classes, targets = ok, head.class_index(own), batch.targets
            wrong = {
                row: head.reject_reason(int(own[row]))
                for row in np.flatnonzero(classes.numpy() < 0).tolist()
            }
            for row, target in enumerate(targets or ()):
                if reason := head.reject_target(target):
                    wrong[row] = reason
            if wrong:
                known = torch.ones(len(ok), dtype=torch.bool)
                known[list(wrong)] = False
                for row, reason in wrong.items():
                    status[int(ok[row])], detail[int(ok[row])] = BAD_LABEL, reason
                rows, classes = ok[known], classes[known]
                inputs = inputs[known.to(inputs.device)]
                if targets is not None:
                    targets = [targets[row] for row in np.flatnonzero(known.numpy()).tolist()]
            if len(rows):
                ids = batch.ids[rows.numpy()]
                given = Rows(inputs, classes.to(inputs.device), ids, targets)
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


def _no_rows(path: LearningPath, tol: float | None, labels: Labels) -> Scored:
    extra: dict[str, Tensor] = {}
    if labels is None:
        extra = {AGREEMENT: torch.empty(0)}
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
        scores, extra = head.scores_and_columns(rows)
        return Scored(*columns(scores, path), extra)
    return score_to_tolerance(head, rows, path, tol)
