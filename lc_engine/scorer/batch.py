"""Scoring a batch of which any row may be bad: such a row keeps or gets a status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine._util.transfer import download, upload
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

    # Waits for the scores of rows, and for their features if they were asked for.
    _Found = Callable[[], tuple[Scored, NDArray[np.float32] | None]]
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


def start_rows(
    batch: Batch,
    head_for: Callable[[Inputs], Head],
    path: LearningPath,
    tol: float | None,
    features: bool = False,
    labels: Labels = "class",
) -> Callable[[], RowScores]:
    """Begin to score a batch; return a function that returns its scores.

    On a GPU the scores are still being computed when this returns, and the function waits for them:
    with a batch begun before, the GPU need not wait for the host. On a CPU they are there.

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
    rows = ok[:0]
    found: _Found = lambda: (_no_rows(path, tol, labels), None)  # noqa: E731
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
                given = Rows(inputs, upload(classes, inputs.device), ids, targets)
                found = _started(head, given, path, tol, features)

    def finish() -> RowScores:
        return _on_host(*found(), rows, status, detail, len(batch))

    return finish


def _on_host(
    found: Scored,
    whole: NDArray[np.float32] | None,
    rows: Tensor,
    status: SparseTexts,
    detail: SparseTexts,
    count: int,
) -> RowScores:
    """Return the scores of a batch from those of the rows that could be scored."""
    lost = torch.from_numpy(~np.isfinite(found.columns.numpy()).all(0))
    if lost.any():
        for i in rows[lost].tolist():
            status[i], detail[i] = NON_FINITE, NON_FINITE_OUTPUT
        found = found.without(lost)
    lc, loss, lc_std = scatter(found.columns, rows, count)
    scores = PathScores(lc, loss, scatter(found.log_probs, rows, count))
    extra = {name: scatter(part, rows, count) for name, part in found.extra.items()}
    if whole is not None:
        there = np.zeros(count, bool)
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


def _started(
    head: Head, rows: Rows, path: LearningPath, tol: float | None, features: bool
) -> _Found:
    """Begin to score rows, and to bring their features to the host if they are asked for."""
    if not features:
        scored = _scored(head, rows, path, tol)
        return lambda: (scored(), None)
    assert isinstance(head.views, KeptFeatures)
    head.views.keep(len(rows.classes))
    try:
        scored = _scored(head, rows, path, tol)
        whole = download([head.views.kept(rows.inputs).float()])
    finally:
        head.views.keep(0)
    return lambda: (scored(), whole()[0].numpy())


def _scored(head: Head, rows: Rows, path: LearningPath, tol: float | None) -> Callable[[], Scored]:
    if tol is not None:  # which sub-models a row needs follows from scores on the host
        found = score_to_tolerance(head, rows, path, tol)
        return lambda: found
    (lc, loss, log_probs), extra = head.scores_and_columns(rows)
    assert log_probs is not None
    names = list(extra)
    coming = download([lc, loss, log_probs, *extra.values()])

    def scored() -> Scored:
        lc, loss, log_probs, *more = coming()
        return Scored(
            *columns(PathScores(lc, loss, log_probs), path), dict(zip(names, more, strict=True))
        )

    return scored
