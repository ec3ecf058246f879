"""The prototype head: softmax over distances to the mean feature of each class."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from lc_engine._util.atomic_write import atomic_write
from lc_engine._util.digests import tensors_digest
from lc_engine._util.read_ahead import one_late
from lc_engine._util.transfer import download
from lc_engine.data.batch import OK
from lc_engine.data.failing_rows import Isolation
from lc_engine.data.wrap.prefetch import may_read_in_thread, prefetch_to_device
from lc_engine.heads.base import ClassHead, SeenClassesHead
from lc_engine.heads.origin import read_origin
from lc_engine.ops import PrototypePlan, contract

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lc_engine.backbone.interface import Views
    from lc_engine.data.batch import Batch, Source
    from lc_engine.data.fields import Inputs
    from lc_engine.data.protocols import FeatureSink, Progress
    from lc_engine.heads.base import Rows
    from lc_engine.ops.prototype_confidence import Logit

    # Waits for features on the host; and the widths of their parts.
    _Coming = tuple[Callable[[], list[Tensor]], tuple[int, ...]]

_HOST: Final = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Class means of the unmasked model's features; classes without a sample are not in it.

    Attributes:
        labels: (C,) int64 the labels that have a mean, ascending.
        means: (C, D) μ_c, float32 (float64 for a float64 model), on the host.
        counts: (C,) int64 samples behind each mean.
        widths: of early exits, how D is cut into the means of each exit; else empty.
        origin: description of the model and data that they were learnt from, as JSON values, with
            digests; None if unknown.
    """

    labels: Tensor
    means: Tensor
    counts: Tensor
    widths: tuple[int, ...] = ()
    origin: Mapping[str, Any] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of labels, means and counts, in hexadecimal."""
        return tensors_digest(
            [("labels", self.labels), ("means", self.means), ("counts", self.counts)]
        )

    def save(self, path: Path) -> None:
        """Write a `.npz` file."""
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                labels=self.labels.numpy(),
                means=self.means.numpy(),
                counts=self.counts.numpy(),
                widths=np.array(self.widths, np.int64),
                origin=json.dumps(self.origin),
            )

    @classmethod
    def load(cls, path: Path) -> Prototypes:
        """Read what `save` wrote."""
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            labels, means, counts = (
                torch.from_numpy(file[name]) for name in ("labels", "means", "counts")
            )
            return cls(labels, means, counts, tuple(file["widths"].tolist()), read_origin(file))


class PrototypeSums:
    """Class sums of a stream of features, in float64: the order of batches does not matter."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._sums = torch.empty(0)
        self._counts = torch.empty(0, dtype=torch.int64)
        self._dtype = torch.float32

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch; rows that are not finite are left out.

        Args:
            features: (N, D) on any device.
            labels: (N,) integers ≥ 0, on any device.
        """
        self._dtype = contract.compute_dtype(features.dtype)
        values, labels = features.detach().cpu().double(), labels.cpu()
        finite = values.isfinite().all(1)
        values, labels = values[finite], labels[finite]
        if not len(labels):
            return
        present, inverse = np.unique(labels.numpy(), return_inverse=True)
        slots = [self._slots.setdefault(label, len(self._slots)) for label in present.tolist()]
        self._grow(values.shape[1])
        rows = torch.tensor(slots, dtype=torch.int64)[torch.from_numpy(inverse)]
        self._sums.index_add_(0, rows, values)
        self._counts += torch.bincount(rows, minlength=len(self._counts))

    @property
    def rows(self) -> int:
        """How many rows were added."""
        return int(self._counts.sum())

    def _grow(self, width: int) -> None:
        have, need = len(self._counts), len(self._slots)
        if need > have:
            room = max(need, 2 * have)
            sums = torch.zeros((room, width), dtype=torch.float64)
            if have:
                sums[:have] = self._sums
            self._sums = sums
            self._counts = torch.cat([self._counts, self._counts.new_zeros(room - have)])

    def means(self, widths: tuple[int, ...] = ()) -> Prototypes:
        """Return the class means so far; see `Prototypes` for `widths`.

        Raises:
            ValueError: no row was added.
        """
        if not self._slots:
            raise ValueError(
                "prototypes need at least one row with a label and finite features; there was none"
            )
        labels = sorted(self._slots)
        rows = [self._slots[label] for label in labels]
        counts = self._counts[rows]
        means = self._sums[rows] / counts.unsqueeze(1)
        return Prototypes(torch.tensor(labels), means.to(self._dtype), counts, widths)


def class_means(
    source: Source,
    whole: Callable[[Inputs], tuple[Tensor, tuple[int, ...]]],
    batch_size: int,
    progress: Progress | None,
    sink: FeatureSink | None = None,
    *,
    device: torch.device = _HOST,
    along: Callable[[Batch, int, Tensor | None], None] | None = None,
) -> Prototypes:
    """Return the class means of the full model's features over the rows whose status is "ok".

    Rows that the model fails on are left out.

    Args:
        source: the data.
        whole: inputs (N, …) -> features (N, D) of the full model, and the widths of their parts.
        batch_size: rows that go through the model at a time.
        progress: called as progress("prototypes", rows done, rows in all).
        sink: gets the features; of several parts the first, that of the deepest exit.
        device: the model's, where batches are copied ahead.
        along: called with each batch that went through the model as one, its first row and its
            features, None where none of its rows is "ok".

    Raises:
        ValueError: no row with a label and finite features.
    """
    sums: dict[int, PrototypeSums] = defaultdict(PrototypeSums)
    widths: tuple[int, ...] = ()
    done = 0
    if sink is not None:
        sink.start()
    # An error's traceback would hold the reading, and so its threads.
    with closing(_features_of(source, whole, batch_size, device, along)) as started:
        for batch, pieces in started if device.type == "cpu" else one_late(started):
            kept: list[NDArray[np.float32] | None] = []
            for piece, found in pieces:
                if found is None:
                    kept.append(None)
                elif len(piece.inputs):
                    (features,), widths = found[0](), found[1]
                    _add(sums, features, piece)
                    if sink is not None:
                        kept.append(on_host(features, widths))
            if sink is not None:
                sink.add(batch, _joined(kept))
            done += len(batch)
            if progress is not None:
                progress("prototypes", done, len(source))
    usual = max(sums.values(), key=lambda one: one.rows, default=PrototypeSums())
    return usual.means(widths)


def _add(sums: dict[int, PrototypeSums], features: Tensor, batch: Batch) -> None:
    """Add the features of the "ok" rows of a batch, apart by how many votes a row has.

    Most rows tell the number of classes; the others, which are `bad_label` then, must not count.
    """
    labels = batch.labels[[status == OK for status in batch.status]]
    votes = [0] * len(labels) if batch.targets is None else [len(one) for one in batch.targets]
    for count in set(votes):
        if votes.count(count) == len(votes):
            sums[count].add(features, labels)
            return
        rows = torch.tensor([one == count for one in votes])
        sums[count].add(features[rows], labels[rows])


def _features_of(
    source: Source,
    whole: Callable[[Inputs], tuple[Tensor, tuple[int, ...]]],
    batch_size: int,
    device: torch.device,
    along: Callable[[Batch, int, Tensor | None], None] | None,
) -> Generator[tuple[Batch, list[tuple[Batch, _Coming | None]]], None, None]:
    """Yield each batch, its pieces and what waits for their features; None for a failed row."""
    isolation = Isolation(lambda rows: whole(rows.inputs), source)
    start = 0
    for batch in prefetch_to_device(
        source.batches(batch_size), device, in_thread=may_read_in_thread(source)
    ):
        pieces: list[tuple[Batch, _Coming | None]] = []
        features: Tensor | None = None
        for piece, found in isolation.each(batch) if len(batch.inputs) else ():
            if isinstance(found, Exception):
                pieces.append((piece, None))
            else:
                features, widths = found
                pieces.append((piece, (download([features]), widths)))
        went = not pieces or (len(pieces) == 1 and features is not None)  # not one row that failed
        if along is not None and went:
            along(batch, start, features)
        start += len(batch)
        yield batch, pieces


def _joined(kept: list[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """Return the features of pieces as one array; NaN for a piece of one row that failed."""
    some = next((part for part in kept if part is not None), None)
    if some is None:
        return None
    missing = np.full((1, some.shape[1]), np.nan, np.float32)
    return np.concatenate([missing if part is None else part for part in kept])


def on_host(features: Tensor, widths: tuple[int, ...]) -> NDArray[np.float32]:
    """Return features (N, D) as float32 on the host; of several parts of these widths the first."""
    first = features[:, : widths[0]] if widths else features
    return first.detach().float().cpu().numpy()


class PrototypeHead(SeenClassesHead, ClassHead):
    """Softmax over the distances between a sub-model's features and the class prototypes.

    Args:
        views: the sub-models.
        path_weights: (K,) ω_k.
        prototypes: the class means.
        logit: "inverse_distance", "neg_sq_distance" or "cosine"; see `ops.prototype_confidence`.
        temperature: divides the logit.
    """

    def __init__(
        self,
        views: Views,
        path_weights: Tensor,
        prototypes: Prototypes,
        logit: Logit,
        temperature: float,
    ) -> None:
        super().__init__(views, path_weights)
        self.labels = prototypes.labels
        self._plans = [
            PrototypePlan(means.to(path_weights.device), logit=logit, temperature=temperature)
            for means in torch.split(
                prototypes.means, list(prototypes.widths) or prototypes.means.shape[1], 1
            )
        ]

    def reject_reason(self, label: int) -> str:
        """Return why a label has no class here."""
        return f"class {label} has no prototype: none of its rows had finite features"

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Return log p (P, N); points that share prototypes take one call of the operator."""
        features = self.views.features(rows.inputs, points)
        if len(self._plans) == 1:
            stacked = features if isinstance(features, Tensor) else torch.stack(list(features))
            return self._one(self._plans[0], stacked, rows.classes)
        parts = [
            self._one(self._plans[k], values.unsqueeze(0), rows.classes)
            for k, values in zip(points, features, strict=True)
        ]
        return torch.cat(parts)

    @property
    def class_labels(self) -> Tensor:
        """(C,) the labels that have a prototype."""
        return self.labels

    def class_log_probs(self, rows: Rows, points: Sequence[int]) -> Iterator[Tensor]:
        """Yield log p of all classes (N, C) under sub-models."""
        for k, values in zip(points, self.views.features(rows.inputs, points), strict=True):
            plan = self._plans[max(k, 0) if len(self._plans) > 1 else 0]
            self._check_width(plan, values)
            yield plan.logits(values.to(plan.prototypes.dtype)).log_softmax(1)

    def _check_width(self, plan: PrototypePlan, features: Tensor) -> None:
        width = plan.prototypes.shape[1]
        if features.shape[-1] != width:
            raise ValueError(
                f"the model returns features of width {features.shape[-1]}, but the prototypes "
                f"have {width}: they were fitted with another model or input size"
            )

    def _one(self, plan: PrototypePlan, features: Tensor, classes: Tensor) -> Tensor:
        self._check_width(plan, features)
        features = features.to(plan.prototypes.dtype)
        # Rows without a class were taken out on the host.
        log_probs = plan(features, classes, return_path=True, checked=True).log_probs
        assert log_probs is not None
        # A kernel's comparisons may drop a NaN.
        return log_probs.masked_fill(~features.isfinite().all(2), torch.nan)
