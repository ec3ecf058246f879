"""Scorer: a batch in, learning-complexity scores out.

    lc = Σ ω_k p_k(y|x)        loss = −Σ ω_k log p_k(y|x)

over the sub-models k of a learning path (arXiv 2402.05356, sections 3 and 4).
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from lc_engine._util.digests import tensors_digest
from lc_engine.backbone.dtypes import DTYPES, Precision
from lc_engine.data.batch import BAD_LABEL, NON_FINITE, OK, Batch
from lc_engine.data.mostly import Mostly
from lc_engine.data.protocols import RowScores
from lc_engine.data.row_scores import Scored, columns, scatter
from lc_engine.data.run.atomic_write import write_once
from lc_engine.heads.base import Head, KNNHead, PrototypeHead, Rows
from lc_engine.heads.fit import class_means, neighbours
from lc_engine.heads.memory_bank import Bank
from lc_engine.heads.prototype import Prototypes
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO
from lc_engine.models.load import ModelSpec
from lc_engine.ops import PathScores
from lc_engine.ops.prototype_confidence import Logit
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.adaptive import score_to_tolerance
from lc_engine.scorer.prepared import Prepared
from lc_engine.scorer.sampling import sample_log_probs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from lc_engine.backbone.early_exits import Exits
    from lc_engine.backbone.interface import Views
    from lc_engine.data.batch import Source
    from lc_engine.data.protocols import BatchProgress, Progress
    from lc_engine.language.model import LanguageModelSpec
    from lc_engine.language.scorer import CausalLMScorer

HeadKind = Literal["prototype", "linear", "knn"]
# What a head has learnt from the data of a run, in the run's folder.
LEARNT_FILES = {"prototype": "prototypes.npz", "knn": "bank.npz"}
DTYPE_FILE = "dtype.json"


class Scorer:
    """A model, a learning path, a masking and a head: all that a score depends on but the data.

    The sub-models live in a copy of the model; the model itself is read only. Threads may share
    a scorer; they take turns. A scorer of a `ModelSpec` (or a text) loads the model when it is
    first needed and pickles without it.

    Args:
        model: a module, where it is and in its dtype; or what `ModelSpec` takes.
        head: "prototype" (distances to class means, see `fit`), "linear" (the model's own
            classifier; with `Masking(weights="head")` all sub-models cost one forward) or "knn"
            (the labels of the nearest other rows of the data).
        path: the capacities; default `LearningPath.gauss(8)`.
        masking: default `Masking()`, global magnitude masks outside the head; or `Exits`, which
            bring a path of their own.
        logit: of the prototype head, "inverse_distance", "neg_sq_distance" or "cosine".
        temperature: of the prototype head, divides the logit.
        neighbours: of the kNN head.
        classifier: name of the classifier module, whose input are the features; "auto" finds
            it, None says that the model's output are the features.
        device: where a `ModelSpec` is loaded to; None is the CPU.
        dtype: what the sub-models compute in: "float32", "bfloat16", "auto" for the faster of
            the two on the first batch, None for the model's own; "int8" multiplies linear layers
            and convolutions without groups in 8 bits (`ops.Int8LinearPlan`) and is for a CPU.
        tol: of a Clenshaw-Curtis path, the error in lc that a row may have: no more points are
            run for it than that takes. The table gets the columns `error` and `points`.

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
        masking: Masking | Exits | None = None,
        logit: Logit = "inverse_distance",
        temperature: float = 1.0,
        neighbours: int = 10,
        classifier: str | None = AUTO,
        device: torch.device | str | None = None,
        dtype: Precision | None = None,
        tol: float | None = None,
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
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        if dtype is not None and dtype not in get_args(Precision):
            raise ValueError(f"dtype must be one of {get_args(Precision)} or None, got {dtype!r}")
        self.head: HeadKind = head
        self.masking = Masking() if masking is None else masking
        if self.masking.brings_path and path is not None:
            raise ValueError("path: exits bring their own, one point each; leave it out")
        self.masking.check_head(head)
        self._path = LearningPath.gauss() if path is None else path
        if tol is not None:
            if not tol > 0:
                raise ValueError(f"tol must be positive, got {tol}")
            self.path.levels()  # says so if the path is not nested
        self.logit: Logit = logit
        self.temperature = float(temperature)
        self.neighbours = neighbours
        self.classifier = classifier
        self.device = device
        self.dtype: Precision | None = dtype
        self.tol = tol
        self.prototypes: Prototypes | None = None
        self.bank: Bank | None = None
        self._reset()

    @staticmethod
    def for_causal_lm(
        model: nn.Module | LanguageModelSpec | str, tokenizer: Any = None, **options: Any
    ) -> CausalLMScorer:
        """Make the scorer of a causal language model, for instruction sets.

        Args:
            model: of `transformers`, or what `LanguageModelSpec` takes: a folder, a GGUF file.
            tokenizer: of a model that is given as a module.
            **options: those of `lc_engine.language.scorer.CausalLMScorer`.

        Raises:
            ValueError: naming the argument that does not fit.
            MissingExtraError: transformers is not installed.
        """
        from lc_engine.language.scorer import CausalLMScorer

        return CausalLMScorer(model, tokenizer, **options)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._model: nn.Module | None = self.spec if isinstance(self.spec, nn.Module) else None
        self._transform: Callable[[Any], Tensor] | None = None
        self._prepared: Prepared | None = None
        self._ready_head: Head | None = None

    def __getstate__(self) -> dict[str, Any]:
        held = {"_lock", "_model", "_transform", "_prepared", "_ready_head"}
        return {name: value for name, value in self.__dict__.items() if name not in held}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _twin(self) -> Scorer:
        """Make a scorer of the same loaded model that can learn from other data."""
        self._prepare()  # shared, so that the sub-models are made ready once
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

    @property
    def path(self) -> LearningPath:
        """The K capacities; of exits, known once the model is loaded."""
        return self._prepare().family.path if self.masking.brings_path else self._path

    def fit(
        self, source: Source, *, batch_size: int = 256, progress: Progress | None = None
    ) -> Scorer:
        """Learn what the head needs from the data, in one pass.

        A prototype head takes the class means of the unmasked model's features, a kNN head the
        features of up to `bank.BANK_ROWS` rows under every sub-model; a linear head has nothing
        to learn. Rows whose status is not "ok" and features that are not finite are left out.

        Args:
            source: the data to be scored; see `lc_engine.data.open.open_source`.
            batch_size: rows that go through the model at a time.
            progress: called as progress("prototypes" or "neighbours", rows done, rows in all).

        Returns:
            The scorer itself.

        Raises:
            ValueError: no row with a label and finite features.
        """
        if self.head == "prototype":
            return self.use_prototypes(class_means(source, self._whole, batch_size, progress))
        if self.head == "knn":
            rows = neighbours(source, self._along_the_path, len(self.path), batch_size, progress)
            return self.use_bank(rows)
        return self

    def _whole(self, inputs: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Give the features of the whole model (N, D), and the widths that they are made of."""
        inputs = self._to_model(inputs)
        with self._lock, torch.inference_mode():
            views = self._views(inputs)
            return views.whole(inputs), views.widths

    def _along_the_path(self, inputs: Tensor) -> list[Tensor]:
        """Give the features of all sub-models, K × (N, D), on the host."""
        inputs = self._to_model(inputs)
        with self._lock, torch.inference_mode():
            found = self._views(inputs).features(inputs, range(len(self.path)))
            return [values.float().cpu() for values in found]

    def use_prototypes(self, prototypes: Prototypes) -> Scorer:
        """Take prototypes that were computed before, in place of `fit`."""
        with self._lock:
            self.prototypes = prototypes
            self._ready_head = None
        return self

    def with_path(self, path: LearningPath) -> Scorer:
        """Give a scorer of the same model and settings along another path.

        Raises:
            ValueError: exits, which bring their own; a path that does not suit `tol`.
        """
        twin = self._twin()
        if self.masking.brings_path:
            raise ValueError("path: exits bring their own, one point each")
        if self.tol is not None:
            path.levels()
        twin._path = path
        twin.bank = None  # its rows were seen along the old path
        twin._prepared = twin._ready_head = None
        return twin

    def sample_log_probs(
        self, data: Any, samples: int, path: LearningPath | None = None
    ) -> NDArray[np.float64]:
        """Return log p (K, M) of evenly spaced rows of the data, to measure a path by.

        Args:
            data: what `open_source` takes.
            samples: most rows that are read.
            path: the K capacities, by default the scorer's own.

        Raises:
            ValueError: exits, whose points are theirs; no row that can be scored.
        """
        from lc_engine.data.open import open_source

        if self.masking.brings_path:
            raise ValueError("scorer: exits bring their own points; there is nothing to calibrate")
        measured = self if path is None else self.with_path(path)
        source = open_source(data, transform=self.transform)
        return sample_log_probs(measured, source, samples)

    def use_bank(self, bank: Bank) -> Scorer:
        """Take the bank of a kNN head that was made before, in place of `fit`."""
        with self._lock:
            self.bank = bank
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
                a head that has not been fitted.
        """
        if not isinstance(batch, Batch):
            batch = _as_batch(*batch)
        rows = self.score_rows(batch)
        for i, (before, after) in enumerate(zip(batch.status, rows.status, strict=True)):
            if before == OK and after == BAD_LABEL:
                raise ValueError(f"labels[{i}]: {rows.detail[i]}")
        return rows.scores

    def score_rows(self, batch: Batch, progress: BatchProgress | None = None) -> RowScores:
        """Score a batch of which any row may be bad: such a row keeps or gets a status.

        Args:
            batch: B rows.
            progress: not called: rows of a batch are done together.

        Raises:
            ValueError: inputs that the model cannot take; a head not fitted.
        """
        with self._lock:
            return self._score_rows(batch)

    def _score_rows(self, batch: Batch) -> RowScores:
        status, detail = Mostly.of(batch.status, OK), Mostly.of(batch.detail, "")
        # Rows are counted and picked by NumPy, or not at all where every one is fine: torch's
        # threads would spin on beside the core's own.
        scorable = np.ones(len(batch), dtype=bool)
        scorable[list(status.others)] = False
        ok = torch.from_numpy(np.flatnonzero(scorable))
        if len(ok) != len(batch.inputs):
            raise ValueError(
                f"batch.inputs must hold the {len(ok)} rows whose status is ok, got "
                f"{len(batch.inputs)}"
            )
        rows, found = ok[:0], self._no_rows()
        if len(ok):
            inputs = self._to_model(batch.inputs)
            with torch.inference_mode():
                head = self._get_head(inputs)
                labels = batch.labels if len(ok) == len(batch) else batch.labels[ok]
                rows, classes = ok, head.class_index(labels)
                known = torch.from_numpy(classes.numpy() >= 0)
                if not known.all():
                    for i in ok[~known].tolist():
                        status[i], detail[i] = BAD_LABEL, head.complaint(int(batch.labels[i]))
                    rows, classes = ok[known], classes[known]
                    inputs = inputs[known.to(inputs.device)]
                if len(rows):
                    ids = batch.ids[rows.numpy()]
                    found = self._score_known(head, Rows(inputs, classes.to(inputs.device), ids))
        lost = torch.from_numpy(~np.isfinite(found.columns.numpy()).all(0))
        if lost.any():
            for i in rows[lost].tolist():
                status[i] = NON_FINITE
                detail[i] = "the model's output is not finite for this row"
            columns, log_probs = (
                part.masked_fill(lost, torch.nan) for part in (found.columns, found.log_probs)
            )
            found = Scored(columns, log_probs, found.extra)
        lc, loss, lc_std = scatter(found.columns, rows, len(batch))
        scores = PathScores(lc, loss, scatter(found.log_probs, rows, len(batch)))
        extra = {name: scatter(part, rows, len(batch)) for name, part in found.extra.items()}
        return RowScores(scores, lc_std, status, detail, extra)

    def _no_rows(self) -> Scored:
        extra: dict[str, Tensor] = {}
        if self.tol is not None:
            extra = {"error": torch.empty(0), "points": torch.empty(0, dtype=torch.int64)}
        return Scored(torch.empty(3, 0), torch.empty(len(self.path), 0), extra)

    def _score_known(self, head: Head, rows: Rows) -> Scored:
        if self.tol is None:
            return Scored(*columns(head.score(rows), self.path), {})
        return score_to_tolerance(head, rows, self.path, self.tol)

    @property
    def input_device(self) -> torch.device:
        """Where the model is; inputs are brought there."""
        return self._prepare().device

    def _to_model(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.input_device)

    def _prepare(self) -> Prepared:
        """Find the weights and thresholds, anew if the model's weights have changed since."""
        with self._lock:
            if self._prepared is None or self._prepared.stale():
                self._prepared = Prepared(self.model, self.classifier, self.masking, self._path)
                self._ready_head = None
            return self._prepared

    def _views(self, inputs: Tensor) -> Views:
        prepared = self._prepare()
        if self.dtype == "auto":  # settled here, once
            self.dtype = prepared.faster_dtype(inputs)
        return prepared.views(inputs, self._compute_dtype(prepared))

    def _compute_dtype(self, prepared: Prepared) -> torch.dtype:
        return prepared.dtype if self.dtype is None else DTYPES[self.dtype]

    def _get_head(self, inputs: Tensor) -> Head:
        prepared = self._prepare()
        if self._ready_head is not None:
            return self._ready_head
        if self.head == "prototype" and self.prototypes is None:
            raise ValueError("the prototype head has no prototypes yet: call fit(source) first")
        if self.head == "knn" and self.bank is None:
            raise ValueError("the kNN head has no rows to look in yet: call fit(source) first")
        views = self._views(inputs)
        omega = torch.tensor(self.path.weights, dtype=torch.float64, device=prepared.device)
        if self.prototypes is not None and self.head == "prototype":
            self._ready_head = PrototypeHead(
                views, omega, self.prototypes, self.logit, self.temperature
            )
        elif self.bank is not None and self.head == "knn":
            self._ready_head = KNNHead(views, omega, self.bank, self.neighbours)
        else:
            dtype = self._compute_dtype(prepared)
            self._ready_head = prepared.linear_head(views, omega, dtype)
        return self._ready_head

    def check(self, source: Source) -> None:
        """Refuse data whose classes are not those of a linear head.

        Raises:
            ValueError: the data name their classes, and their number is not the head's width.
        """
        if self.head == "linear":
            width = self._prepare().tap.linear.out_features
            if source.classes is not None and width != len(source.classes):
                raise ValueError(
                    f"the head has {width} classes but the data have {len(source.classes)}: give a "
                    'model whose head was trained on these classes, or use head="prototype"'
                )

    def fitted(
        self, source: Source, keep_in: Path | None, batch_size: int, progress: Progress | None
    ) -> Scorer:
        """Give a scorer that has learnt what its head needs: itself, or its twin.

        What it learns stays in the folder of a run that is kept, so that a run that continues,
        or another process at the same run, has the same: the dtype that was faster, too.
        """
        if self.dtype == "auto" and len(source):
            return self._settled(source, keep_in).fitted(source, keep_in, batch_size, progress)
        learnt = {"prototype": self.prototypes, "knn": self.bank}.get(self.head, self)
        if learnt is not None or not len(source):
            return self
        twin = self._twin()
        kept = None if keep_in is None else keep_in / LEARNT_FILES[self.head]
        if kept is not None and kept.exists():
            return twin._use_file(kept)
        twin.fit(source, batch_size=batch_size, progress=progress)
        made = twin.bank if self.head == "knn" else twin.prototypes
        if kept is None or made is None:
            return twin
        write_once(kept, made.save)
        return twin._use_file(kept)

    def _settled(self, source: Source, keep_in: Path | None) -> Scorer:
        """Give a twin whose dtype is chosen: by the run so far, or measured on the first rows."""
        twin = self._twin()
        kept = None if keep_in is None else keep_in / DTYPE_FILE
        if kept is None or not kept.exists():
            for batch in source.batches(16):
                if len(batch.inputs):
                    twin._views(twin._to_model(batch.inputs))
                    break
            else:
                twin.dtype = "float32"  # no row can be scored
            if kept is not None:
                chosen = json.dumps({"dtype": twin.dtype}) + "\n"
                write_once(kept, lambda path: path.write_text(chosen, encoding="utf-8"))
        if kept is not None:
            twin.dtype = json.loads(kept.read_text(encoding="utf-8"))["dtype"]
        return twin

    def _use_file(self, path: Path) -> Scorer:
        if self.head == "knn":
            return self.use_bank(Bank.load(path))
        return self.use_prototypes(Prototypes.load(path))

    def describe(self) -> dict[str, Any]:
        """Return all that the scores depend on but the data, as JSON values with digests."""
        prepared = self._prepare()
        head: dict[str, Any] = {"kind": self.head, "classifier": prepared.tap.name}
        if self.head == "prototype":
            head |= {"logit": self.logit, "temperature": self.temperature}
            if self.prototypes is not None:
                head["prototypes"] = self.prototypes.digest
        if self.head == "knn":
            head["neighbours"] = self.neighbours
            if self.bank is not None:
                head["bank"] = self.bank.digest
        spec = self.spec
        own = str(prepared.dtype).removeprefix("torch.")
        described = {
            "model": spec.to_dict() if isinstance(spec, ModelSpec) else type(spec).__qualname__,
            "model_digest": tensors_digest(self.model.state_dict().items()),
            "masking": self.masking.to_dict() | prepared.family.describe(),
            "path": self.path.to_dict(),
            "head": head,
            "dtype": own if self.dtype is None else self.dtype,
        }
        return described if self.tol is None else described | {"tol": self.tol}


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
