"""Scorer: a batch in, learning-complexity scores out.  score: a data set in, a score table out.

    lc = Σ ω_k p_k(y|x)        loss = −Σ ω_k log p_k(y|x)

over the sub-models k of a learning path (arXiv 2402.05356, sections 3 and 4).
"""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import nn

from lc_engine.classifier import AUTO, Tap
from lc_engine.data.batch import BAD_LABEL, NON_FINITE, OK, Batch
from lc_engine.digests import config_digest, tensors_digest
from lc_engine.heads import LinearHead, PrototypeHead, linear_head
from lc_engine.masking import Masking
from lc_engine.models import ModelSpec
from lc_engine.ops import PathScores
from lc_engine.ops.prototype_confidence import Logit
from lc_engine.path import LearningPath
from lc_engine.prototypes import Prototypes, PrototypeSums
from lc_engine.submodels import Submodels, evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from lc_engine.data.batch import Source
    from lc_engine.data.table import ScoreTable

    Progress = Callable[[str, int, int], None]

HeadKind = Literal["prototype", "linear"]
PROTOTYPES_FILE = "prototypes.npz"


class RowScores(NamedTuple):
    """Scores of the B rows of a batch, all on the host; NaN where the status is not "ok".

    Attributes:
        scores: lc (B,), loss (B,) and log_probs (K, B).
        lc_std: (B,) √(Σ ω_k p_k² − lc²), the spread of the confidence over the path.
        status: B of "ok", "unreadable", "bad_label", "non_finite".
        detail: B sentences, "" where the row is ok.
    """

    scores: PathScores
    lc_std: Tensor
    status: list[str]
    detail: list[str]


class Scorer:
    """A model, a learning path, a masking and a head: all that a score depends on but the data.

    Scoring leaves the model's weights, buffers and flags as they were, bit for bit. Threads may
    share a scorer; they take turns. A scorer of a `ModelSpec` (or a text) loads the model when it
    is first needed and pickles without it.

    Args:
        model: a module, where it is and in its dtype; or what `ModelSpec` takes.
        head: "prototype" (distances to class means, see `fit`) or "linear" (the model's own
            classifier; with `Masking(weights="head")` all sub-models cost one forward).
        path: the capacities; default `LearningPath.gauss(8)`.
        masking: default `Masking()`, global magnitude masks outside the head.
        logit: of the prototype head, "inverse_distance", "neg_sq_distance" or "cosine".
        temperature: of the prototype head, divides the logit.
        classifier: name of the classifier module, whose input are the features; "auto" finds
            it, None says that the model's output are the features.
        device: where a `ModelSpec` is loaded to; None is the CPU.

    Raises:
        ValueError: naming the argument that does not fit. What only the model can tell is said
            when it is first used.
    """

    def __init__(
        self,
        model: nn.Module | ModelSpec | str,
        *,
        head: HeadKind = "prototype",
        path: LearningPath | None = None,
        masking: Masking | None = None,
        logit: Logit = "inverse_distance",
        temperature: float = 1.0,
        classifier: str | None = AUTO,
        device: torch.device | str | None = None,
    ) -> None:
        self.spec = ModelSpec(model) if isinstance(model, str) else model
        if not isinstance(self.spec, ModelSpec | nn.Module):
            raise ValueError(
                f"model must be a module, a ModelSpec or a text, got {type(model).__name__}"
            )
        if isinstance(self.spec, nn.Module) and device is not None:
            raise ValueError("device is for a model that is loaded here: move the module yourself")
        if head not in get_args(HeadKind):
            raise ValueError(f"head must be one of {get_args(HeadKind)}, got {head!r}")
        if logit not in get_args(Logit):
            raise ValueError(f"logit must be one of {get_args(Logit)}, got {logit!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.head: HeadKind = head
        self.path = LearningPath.gauss() if path is None else path
        self.masking = Masking() if masking is None else masking
        if head == "prototype" and self.masking.weights == "head":
            raise ValueError(
                'masking: weights="head" changes no feature, so a prototype head would see the '
                'same model K times: use weights="body", or head="linear"'
            )
        self.logit: Logit = logit
        self.temperature = float(temperature)
        self.classifier = classifier
        self.device = device
        self.prototypes: Prototypes | None = None
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._model: nn.Module | None = self.spec if isinstance(self.spec, nn.Module) else None
        self._transform: Callable[[Any], Tensor] | None = None
        self._prepared: _Prepared | None = None
        self._ready_head: LinearHead | PrototypeHead | None = None

    def __getstate__(self) -> dict[str, Any]:
        held = {"_lock", "_model", "_transform", "_prepared", "_ready_head"}
        return {name: value for name, value in self.__dict__.items() if name not in held}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _twin(self) -> Scorer:
        """Make a scorer of the same loaded model that can have other prototypes."""
        twin = object.__new__(Scorer)
        twin.__dict__.update(self.__dict__)
        return twin

    @property
    def model(self) -> nn.Module:
        """The module; a `ModelSpec` is loaded at the first use."""
        with self._lock:
            if self._model is None:
                assert isinstance(self.spec, ModelSpec)
                loaded = self.spec.load()
                self._model = loaded.model.to(self.device or "cpu")
                self._transform = loaded.transform
            return self._model

    @property
    def transform(self) -> Callable[[Any], Tensor] | None:
        """The evaluation transform, PIL picture -> tensor, of a `ModelSpec`; None if unknown."""
        return self._transform if self.model is not None else None

    def fit(
        self, source: Source, *, batch_size: int = 64, progress: Progress | None = None
    ) -> Scorer:
        """Compute the prototypes: class means of the unmasked model's features, in one pass.

        Rows whose status is not "ok" and features that are not finite are left out. A linear head
        has nothing to fit.

        Args:
            source: the data to be scored; see `lc_engine.data.sources.open_source`.
            batch_size: rows that go through the model at a time.
            progress: called as progress("prototypes", rows done, rows in all).

        Returns:
            The scorer itself.

        Raises:
            ValueError: no row with a label and finite features.
        """
        if self.head == "linear":
            return self
        sums = PrototypeSums()
        tap, done = self._prepare().tap, 0
        for batch in source.batches(batch_size):
            if len(batch.inputs):
                labels = batch.labels[[status == OK for status in batch.status]]
                with self._lock, torch.inference_mode(), evaluating(self.model):
                    sums.add(tap.features(self._to_model(batch.inputs)), labels)
            done += len(batch)
            if progress is not None:
                progress("prototypes", done, len(source))
        return self.use_prototypes(sums.means())

    def use_prototypes(self, prototypes: Prototypes) -> Scorer:
        """Take prototypes that were computed before, in place of `fit`."""
        with self._lock:
            self.prototypes = prototypes
            self._ready_head = None
        return self

    def score_batch(self, batch: Batch | tuple[Tensor, Tensor]) -> PathScores:
        """Score a batch.

        The same row gives the same score whatever batch it comes in, up to the rounding of the
        library's convolutions and matrix products, which choose their kernels by shape: 1e-5 in
        lc in float32, seen on a network with 1,000 classes.

        Args:
            batch: a `Batch`, or (inputs (B, …), labels (B,)).

        Returns:
            PathScores with log_probs, on the host; NaN where a row has no finite score.

        Raises:
            ValueError: a label that the head does not know; inputs that the model cannot take;
                a prototype head that has not been fitted.
        """
        if not isinstance(batch, Batch):
            batch = _as_batch(*batch)
        rows = self.score_rows(batch)
        for i, (before, after) in enumerate(zip(batch.status, rows.status, strict=True)):
            if before == OK and after == BAD_LABEL:
                raise ValueError(f"labels[{i}]: {rows.detail[i]}")
        return rows.scores

    def score_rows(self, batch: Batch) -> RowScores:
        """Score a batch of which any row may be bad: such a row keeps or gets a status.

        Raises:
            ValueError: inputs that the model cannot take; a prototype head not fitted.
        """
        with self._lock:
            return self._score_rows(batch)

    def _score_rows(self, batch: Batch) -> RowScores:
        head = self._get_head()
        status, detail = list(batch.status), list(batch.detail)
        ok = torch.tensor([i for i, s in enumerate(status) if s == OK], dtype=torch.int64)
        if len(ok) != len(batch.inputs):
            raise ValueError(
                f"batch.inputs must hold the {len(ok)} rows whose status is ok, got "
                f"{len(batch.inputs)}"
            )
        classes = head.class_index(batch.labels[ok])
        for i in ok[classes < 0].tolist():
            status[i], detail[i] = BAD_LABEL, head.complaint(int(batch.labels[i]))
        known = classes >= 0
        rows, classes = ok[known], classes[known]
        log_probs = torch.full((len(self.path), len(batch)), torch.nan)
        columns = torch.full((3, len(batch)), torch.nan)
        if len(rows):
            inputs = self._to_model(batch.inputs[known] if len(rows) < len(ok) else batch.inputs)
            with torch.inference_mode():
                scores = head.score(inputs, classes.to(inputs.device))
            found = _columns(scores, self.path)
            log_probs = log_probs.to(found[1].dtype).index_copy_(1, rows, found[1])
            columns = columns.to(found[0].dtype).index_copy_(1, rows, found[0])
            for i in rows[~found[0].isfinite().all(0)].tolist():
                status[i], detail[i] = NON_FINITE, "the model's output is not finite for this row"
                log_probs[:, i] = columns[:, i] = torch.nan
        return RowScores(PathScores(columns[0], columns[1], log_probs), columns[2], status, detail)

    def _to_model(self, inputs: Tensor) -> Tensor:
        weight = next(iter(self._prepare().submodels.weights.values()))
        if inputs.dim() == 4 and weight.device.type == "cpu":
            # Convolutions on a CPU take pixels with their channels side by side a third faster.
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if inputs.is_floating_point():
            return inputs.to(weight.device, weight.dtype)
        return inputs.to(weight.device)

    def _prepare(self) -> _Prepared:
        """Find the weights and thresholds, anew if the model's weights have changed since."""
        with self._lock:
            if self._prepared is None or self._prepared.stale():
                self._prepared = _Prepared(self)
                self._ready_head = None
            return self._prepared

    def _get_head(self) -> LinearHead | PrototypeHead:
        prepared = self._prepare()
        if self._ready_head is None:
            tap, submodels = prepared.tap, prepared.submodels
            if self.head == "linear":
                self._ready_head = linear_head(tap, submodels)
            elif self.prototypes is None:
                raise ValueError("the prototype head has no prototypes yet: call fit(source) first")
            else:
                self._ready_head = PrototypeHead(
                    tap, submodels, self.prototypes, self.logit, self.temperature
                )
        return self._ready_head

    def check_classes(self, classes: Sequence[str] | None) -> None:
        """Refuse a data set whose classes are not those of a linear head.

        Args:
            classes: names of the data's classes, None if they are not known.

        Raises:
            ValueError: their number is not the head's width.
        """
        if self.head == "prototype" or classes is None:
            return
        width = self._prepare().tap.linear.out_features
        if width != len(classes):
            raise ValueError(
                f"the head has {width} classes but the data have {len(classes)}: give a model "
                'whose head was trained on these classes, or use head="prototype"'
            )

    def describe(self) -> dict[str, Any]:
        """Return all that the scores depend on but the data, as JSON values with digests."""
        prepared = self._prepare()
        weights = prepared.submodels.weights
        head: dict[str, Any] = {"kind": self.head, "classifier": prepared.tap.name}
        if self.head == "prototype":
            head |= {"logit": self.logit, "temperature": self.temperature}
            if self.prototypes is not None:
                head["prototypes"] = self.prototypes.digest
        spec = self.spec
        return {
            "model": spec.to_dict() if isinstance(spec, ModelSpec) else type(spec).__qualname__,
            "model_digest": tensors_digest(self.model.state_dict().items()),
            "masking": self.masking.to_dict()
            | {
                "tensors": len(weights),
                "numel": sum(weight.numel() for weight in weights.values()),
                "names_digest": config_digest({"names": list(weights)}),
            },
            "path": self.path.to_dict(),
            "head": head,
            "dtype": str(next(iter(weights.values())).dtype).removeprefix("torch."),
        }


class _Prepared:
    """What is worked out once for a model's weights, and noticing when these have changed."""

    def __init__(self, scorer: Scorer) -> None:
        self.tap = Tap(scorer.model, scorer.classifier)
        self.submodels = Submodels(scorer.model, scorer.path, scorer.masking, head=self.tap.name)
        self._parameters = [
            *self.submodels.weights.values(),
            *(() if self.tap.module is None else self.tap.module.parameters()),
        ]
        self._state = self._fingerprint()

    def _fingerprint(self) -> list[tuple[int, int]]:
        return [
            (parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version)
            for parameter in self._parameters
        ]

    def stale(self) -> bool:
        return self._fingerprint() != self._state


def score(
    scorer: Scorer,
    data: Any,
    out: str | Path | None = None,
    *,
    batch_size: int = 64,
    num_workers: int | None = None,
    shard_rows: int = 65536,
    return_path: bool = False,
    progress: Progress | None = None,
) -> ScoreTable:
    """Score every row of a data set.

    A row that cannot be scored stays in the table with its status and never stops the job. A
    prototype head that has not been fitted is fitted on the data first (the scorer passed in is
    not changed), so the data are read twice.

    Args:
        scorer: what to score with.
        data: what `lc_engine.data.sources.open_source` takes; call that yourself for its options.
        out: a folder. Shards of the table are written there as they are done, and a run that was
            killed continues where it was; None keeps the table in memory only.
        batch_size: rows that go through the model at a time.
        num_workers: threads that decode pictures; None takes one per processor.
        shard_rows: rows per shard in `out`.
        return_path: whether the table gets the column `path_log_probs`.
        progress: called after each batch as progress(phase, rows done, rows in all), phase
            "prototypes" or "scores".

    Returns:
        The table, rows in the order of the data.

    Raises:
        ValueError: data or model do not fit, or `out` holds another run; the text says what to do.
    """
    from lc_engine.data.sources import open_source

    source = open_source(data, transform=scorer.transform, num_workers=num_workers)
    scorer.check_classes(source.classes)
    described = scorer.describe() | {"data_digest": source.digest()}
    run = _Run(source, described, batch_size, return_path, progress)
    if out is None:
        return run.table(run.fitted(scorer, None), 0, len(source))
    from lc_engine.data.ledger import Ledger

    manifest = described | {
        "data": source.describe(),
        "path_log_probs": return_path,
        "lc_engine": version("lc_engine"),
    }
    ledger = Ledger(out, manifest, len(source), shard_rows)
    ready: Scorer | None = None
    for shard in ledger.pending():
        if ready is None:
            ready = run.fitted(scorer, ledger.out_dir)
        ledger.commit(shard, run.table(ready, shard.start, shard.stop))
    return ledger.table()


@dataclass(frozen=True)
class _Run:
    """What stays the same over the shards of a run."""

    source: Source
    metadata: dict[str, Any]
    batch_size: int
    return_path: bool
    progress: Progress | None

    def fitted(self, scorer: Scorer, out: Path | None) -> Scorer:
        """Give a scorer that can score: itself, or its twin with the prototypes of the data.

        In an output folder the prototypes are kept, so that a run that continues has the same.
        """
        if scorer.head == "linear" or scorer.prototypes is not None or not len(self.source):
            return scorer
        twin = scorer._twin()
        kept = None if out is None else out / PROTOTYPES_FILE
        if kept is not None and kept.exists():
            return twin.use_prototypes(Prototypes.load(kept))
        twin.fit(self.source, batch_size=self.batch_size, progress=self.progress)
        if kept is None or twin.prototypes is None:
            return twin
        temporary = kept.with_name(f"{kept.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            twin.prototypes.save(temporary)
            # A link, not a rename: of two processes that work here, both must use the first's.
            with suppress(FileExistsError):
                kept.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        return twin.use_prototypes(Prototypes.load(kept))

    def table(self, scorer: Scorer, start: int, stop: int) -> ScoreTable:
        """Score rows [start, stop)."""
        from lc_engine.data.table import ScoreTable

        ids: list[np.ndarray] = []
        labels = [torch.empty(0, dtype=torch.int64)]
        columns = [torch.empty(3, 0)]
        log_probs = [torch.empty(len(scorer.path), 0)]
        status: list[str] = []
        detail: list[str] = []
        done = start
        for batch in self.source.batches(self.batch_size, start, stop):
            rows = scorer.score_rows(batch)
            ids.append(batch.ids)
            labels.append(batch.labels)
            columns.append(torch.stack([rows.scores.lc, rows.scores.loss, rows.lc_std]).float())
            if self.return_path and rows.scores.log_probs is not None:
                log_probs.append(rows.scores.log_probs.float())
            status += rows.status
            detail += rows.detail
            done += len(batch)
            if self.progress is not None:
                self.progress("scores", done, len(self.source))
        metadata = self.metadata
        if scorer.prototypes is not None:
            digest = {"prototypes": scorer.prototypes.digest}
            metadata = metadata | {"head": metadata["head"] | digest}
        lc, loss, lc_std = torch.cat(columns, dim=1).numpy()
        return ScoreTable.from_arrays(
            ids=np.concatenate(ids) if ids else np.empty(0, np.int64),
            labels=torch.cat(labels).numpy(),
            lc=lc,
            loss=loss,
            lc_std=lc_std,
            status=status,
            detail=detail,
            metadata=metadata,
            path_log_probs=torch.cat(log_probs, dim=1).T.numpy() if self.return_path else None,
        )


def _columns(scores: PathScores, path: LearningPath) -> tuple[Tensor, Tensor]:
    """Bring scores to the host: (3, N) of lc, loss, lc_std, and log p (K, N)."""
    assert scores.log_probs is not None
    log_probs = scores.log_probs.cpu()
    lc = scores.lc.cpu()
    omega = torch.tensor(path.weights, dtype=torch.float64).unsqueeze(1)
    p = log_probs.double().exp()
    mean = (omega * p).sum(0)
    deviation = (omega * (p - mean).square()).sum(0).sqrt()
    return torch.stack([lc, scores.loss.cpu(), deviation.to(lc.dtype)]), log_probs


def _as_batch(inputs: Tensor, labels: Tensor) -> Batch:
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
