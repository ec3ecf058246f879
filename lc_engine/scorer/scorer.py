"""Scorer: a batch in, learning-complexity scores out.

    lc = Σ ω_k p_k(y|x)        loss = −Σ ω_k log p_k(y|x)

over the sub-models k of a learning path (arXiv 2402.05356, sections 3 and 4).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine._util.digests import tensors_digest
from lc_engine.backbone import dtypes
from lc_engine.backbone.early_exits import Exits
from lc_engine.data.batch import BAD_LABEL, OK, Batch
from lc_engine.data.faults import Fault, fault_of, out_of_memory
from lc_engine.data.fields import Fields
from lc_engine.data.identity import unchanged
from lc_engine.data.label_range import check_labels_begin_at_0
from lc_engine.data.wrap.cache import CachedSource
from lc_engine.data.wrap.subset import whole_of
from lc_engine.heads.loss import Loss
from lc_engine.heads.memory_bank import MemoryBank
from lc_engine.heads.origin import check_model, describe_origin
from lc_engine.models.classifier import AUTO
from lc_engine.models.load import ModelSpec
from lc_engine.path.learning_path import checked_path
from lc_engine.scorer.batch import as_batch, start_rows
from lc_engine.scorer.head_config import HeadConfig
from lc_engine.scorer.lazy_model import LazyModel
from lc_engine.scorer.learnt import keep_dtype, keep_learnt
from lc_engine.scorer.path_features import PathFeatures
from lc_engine.scorer.prepared import MODEL_CHANGED
from lc_engine.scorer.sampling import sample_log_probs
from lc_engine.scorer.whole_features import KeptFeatures, whole_point

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from lc_engine.backbone.dtypes import Precision
    from lc_engine.data.batch import Source
    from lc_engine.data.fields import Inputs
    from lc_engine.data.protocols import BatchProgress, FeatureSink, Progress, RowScores
    from lc_engine.data.targets import LabelKind
    from lc_engine.heads.base import Head
    from lc_engine.heads.prototype import Prototypes
    from lc_engine.language.model import LanguageModelSpec
    from lc_engine.language.scorer import CausalLMScorer
    from lc_engine.masking import Masking
    from lc_engine.ops import PathScores
    from lc_engine.ops.prototype_confidence import Logit
    from lc_engine.path.learning_path import LearningPath
    from lc_engine.scorer.head_config import HeadKind, Labels
    from lc_engine.scorer.learnt import Learnt
    from lc_engine.scorer.prepared import Prepared


class Scorer(LazyModel):
    """A model, a learning path, a masking and a head: all that a score depends on but the data.

    The sub-models live in a copy of the model; the model itself is read only. Threads may share
    a scorer; they take turns. A scorer of a `ModelSpec` (or a text) loads the model when it is
    first needed and pickles without it.

    Args:
        model: a module, where it is and in its dtype; or what `ModelSpec` takes.
        head: "prototype" (distances to class means, see `fit`), "linear" (the model's own
            classifier; with `Masking(weights="head")` all sub-models cost one forward), "knn"
            (the labels of the nearest other rows of the data), or a `Loss`: any negative
            log-likelihood of the model's outputs and the targets of the rows.
        path: the capacities; default `LearningPath.gauss(8)`.
        masking: default `Masking()`, global magnitude masks outside the head; or `Exits`, which
            bring a path of their own.
        logit: of the prototype head, "inverse_distance", "neg_sq_distance" or "cosine".
        temperature: of the prototype head, divides the logit.
        neighbours: of the kNN head.
        labels: "class", an integer per row; "soft", votes or probabilities for each class, whose
            expected log p is scored; None takes each sub-model's largest probability, and the
            table gets the column `agreement`. See docs/kinds.md.
        classifier: name of the classifier module, whose input are the features; "auto" finds
            it, None says that the model's output are the features.
        device: where a `ModelSpec` is loaded to; "auto" is CUDA where there is any, None the CPU.
        dtype: what the sub-models compute in: "float32", "bfloat16", "auto" for bfloat16 on a
            device that multiplies it natively and else float32, None for the model's own; "int8"
            multiplies linear layers and convolutions without groups in int8
            (`ops.Int8LinearPlan`), on a CPU only.
        tol: of a Clenshaw-Curtis path, the error in lc that a row may have: no more points are
            run for it than that takes. The table gets the columns `error` and `points`.
        checkpoint: of a model that a text names, as in `ModelSpec`.
        image_size: likewise.

    Raises:
        ValueError: naming the argument that does not fit; what depends on the model is checked
            when it is first used.
    """

    def __init__(
        self,
        model: nn.Module | ModelSpec | str,
        *,
        head: HeadKind | Loss = "prototype",
        path: LearningPath | None = None,
        masking: Masking | Exits | None = None,
        logit: Logit = "inverse_distance",
        temperature: float = 1.0,
        neighbours: int = 10,
        labels: Labels = "class",
        classifier: str | None = AUTO,
        device: torch.device | str | None = None,
        dtype: Precision | None = None,
        tol: float | None = None,
        checkpoint: str | Path | None = None,
        image_size: int | None = None,
    ) -> None:
        if checkpoint is not None or image_size is not None:
            if not isinstance(model, str):
                raise ValueError("checkpoint and image_size are for a model that a text names")
            weights = None if checkpoint is None else str(checkpoint)
            model = ModelSpec(model, checkpoint=weights, image_size=image_size)
        super().__init__(model, path, masking, classifier, device, dtype)
        HeadConfig(head, logit, temperature, neighbours, labels)  # checks its fields
        kind = "loss" if isinstance(head, Loss) else head
        self.masking.check_head(kind)
        if isinstance(head, Loss) and self.masking.brings_path:
            raise ValueError("masking: exits return features, not what a loss takes: use Masking()")
        if labels is None and tol is not None:
            raise ValueError("tol is for rows with labels: leave it out, or give labels")
        if tol is not None:
            if not tol > 0:
                raise ValueError(f"tol must be positive, got {tol}")
            self._path.levels()  # raises if the path is not nested
        self.head: HeadKind | Loss = head
        self.labels: Labels = labels
        self.logit: Logit = logit
        self.temperature = float(temperature)
        self.neighbours = neighbours
        self.tol = tol
        self.prototypes: Prototypes | None = None
        self.bank: MemoryBank | None = None

    @staticmethod
    def for_causal_lm(
        model: nn.Module | LanguageModelSpec | str, tokenizer: Any = None, **options: Any
    ) -> CausalLMScorer:
        """Return the scorer of a causal language model, for instruction sets.

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
        super()._reset()
        # What the head was built for, and the head.
        self._ready_head: tuple[Prepared, Precision | None, int, Head] | None = None

    def with_path(self, path: LearningPath) -> Scorer:
        """Return a scorer of the same model and settings along another path.

        Raises:
            ValueError: exits, which bring their own; a path that does not suit `tol`.
        """
        twin, path = self._twin(), checked_path(path)
        if self.masking.brings_path:
            raise ValueError("path: exits bring their own, one point each")
        if self.tol is not None:
            path.levels()
        twin._path = path
        twin.bank = None  # it holds features along the old path
        twin._prepared = None
        return twin

    def fit(
        self, source: Source, *, batch_size: int = 256, progress: Progress | None = None
    ) -> Scorer:
        """Learn what the head needs from the data, in one pass.

        A prototype head takes the class means of the unmasked model's features, a kNN head the
        features of up to `memory_bank.BANK_ROWS` rows under every sub-model; a linear head has
        nothing to learn. Rows whose status is not "ok" and features that are not finite are left
        out.

        Args:
            source: the data to be scored; see `lc_engine.data.open.open_source`.
            batch_size: rows that go through the model at a time.
            progress: called as progress("prototypes" or "neighbours", rows done, rows in all).

        Returns:
            The scorer itself.

        Raises:
            ValueError: no row with a label and finite features.
        """
        if not self._head.learns:
            return self
        learnt = self._learn(source, batch_size, progress)
        return self._use(replace(learnt, origin=self._origin(source)))

    def _learn(
        self,
        source: Source,
        batch_size: int,
        progress: Progress | None,
        features: FeatureSink | None = None,
    ) -> Learnt:
        with unchanged(source):
            return self._head.learn(
                source,
                self._whole_features,
                self._path_features,
                len(self.path),
                batch_size,
                progress,
                features,
                device=self.input_device,
                along=self._keeper(source),
            )

    def _keeper(self, source: Source) -> Callable[[Batch, int, Tensor | None], None] | None:
        """Return what runs the sub-models over a batch that the head learns from, for later.

        Scoring then need not read the batch again. None where it must.
        """
        prepared = self._prepare()
        one_width = not isinstance(self.masking, Exits) and prepared.tap.name != ""
        every_point = self.tol is None and self.head == "prototype" and self.labels == "class"
        if not (isinstance(source, CachedSource) and one_width and every_point):
            return None

        def keep(batch: Batch, start: int, whole: Tensor | None) -> None:
            if self._prepare() is not prepared:  # what was kept is another model's
                raise ValueError(MODEL_CHANGED)
            row_bytes = 0 if whole is None else (len(self.path) + 1) * whole[0].nbytes
            if not source.takes(batch, start, row_bytes):
                return
            if whole is None:
                source.keep(batch, start, batch.inputs)
                return
            inputs = batch.inputs.to(self.input_device)
            try:
                with self._lock, torch.inference_mode():
                    found = self._views(inputs).features(inputs, range(len(self.path)))
            except Exception as error:
                # Scoring finds out which rows are at fault, or takes fewer at a time.
                if fault_of(error) is Fault.RUN and not out_of_memory(error):
                    raise
                return
            source.keep(batch, start, PathFeatures(torch.stack([*found]), whole))

        return keep

    def _origin(self, source: Source) -> dict[str, Any]:
        classifier = self._prepare().tap.name
        return describe_origin(super().describe() | {"classifier": classifier}, source)

    def use_prototypes(self, prototypes: Prototypes) -> Scorer:
        """Take prototypes that were computed before, in place of `fit`."""
        return self._use(prototypes)

    def use_bank(self, bank: MemoryBank) -> Scorer:
        """Take the memory bank of a kNN head that was filled before, in place of `fit`."""
        return self._use(bank)

    @property
    def _head(self) -> HeadConfig:
        return HeadConfig(self.head, self.logit, self.temperature, self.neighbours, self.labels)

    @property
    def label_kind(self) -> LabelKind:
        """What the labels of the data are to be, for `open_source`."""
        return self._head.label_kind

    @property
    def _learnt(self) -> Learnt | None:
        return self.bank if self.head == "knn" else self.prototypes

    def _use(self, learnt: Learnt) -> Scorer:
        with self._lock:
            if isinstance(learnt, MemoryBank):
                self.bank = learnt
            else:
                self.prototypes = learnt
            self._ready_head = None
        return self

    def check(self, source: Source) -> None:
        """Refuse data whose classes are not those of a linear head, before they are scored.

        Raises:
            ValueError: the data name their classes, and their number is not the head's width.
        """
        prepared = self._prepare(verified=True)
        kind = getattr(whole_of(source), "label_kind", "class")
        if kind != self.label_kind:
            raise ValueError(
                f"the data were opened with labels of the kind {kind!r}, but the scorer takes "
                f"{self.label_kind!r}: pass label_kind=scorer.label_kind to open_source"
            )
        given = self.prototypes
        if given is not None and given.origin is None and self.head == "prototype":
            known = source.classes
            if self.labels == "class" and known is not None and len(known) != len(given.labels):
                raise ValueError(
                    f"there are {len(given.labels)} prototypes, but the data have {len(known)} "
                    f"classes ({', '.join(known[:3])}, …): give one per class, in this order"
                )
        if self.head == "linear" and self.labels == "class":
            width = prepared.tap.linear.out_features
            if source.classes is not None and width != len(source.classes):
                raise ValueError(
                    f"the head has {width} classes but the data have {len(source.classes)}: give a "
                    'model whose head was trained on these classes, or use head="prototype"'
                )
            numbers = getattr(whole_of(source), "labels", None)
            if source.classes is None and isinstance(numbers, np.ndarray):
                check_labels_begin_at_0(numbers, width)

    @property
    def head_classes(self) -> int | None:
        """C of a linear head, which knows the labels 0 … C − 1; None of one that learns them."""
        if self.head != "linear" or self.labels != "class":
            return None
        return int(self._prepare().tap.linear.out_features)

    def _check_prepared(self, prepared: Prepared) -> None:
        if self.head in ("prototype", "knn") and prepared.family.masks_head_alone:
            raise ValueError(
                f"masking: every weight that is masked is in the classifier "
                f'"{prepared.tap.name}", which a {self.head} head does not use, so it would see '
                'the same model K times: use head="linear", or mask weights="body"'
            )

    def features_forwards(self) -> int | None:
        """Return how many further forwards per row the features take; see `RowScorer`."""
        prepared = self._prepare()
        if prepared.tap.name == "":
            return None
        one_forward = self.head == "linear" and prepared.family.head_mask is not None
        fits = self.head == "prototype" and self.prototypes is None
        known = whole_point(self.masking, self.path) is not None
        return 0 if one_forward or fits or known else 1

    def operations_per_row(self, inputs: Inputs) -> tuple[float, torch.device]:
        """Return about how many additions and multiplications a row takes, and the device.

        An image of H × W pixels uses each weight about H·W/256 times, as eight networks from
        MobileNetV2 (86 at 224 px) to ViT-B (204) do within a factor of 2.3; a row of features once,
        a text once per token.
        """
        prepared = self._prepare()
        weights = sum(one.numel() for one in self.model.parameters() if one.dim() > 1)
        uses = _uses_of_a_weight(inputs)
        if self.head == "linear" and prepared.family.head_mask is not None:
            head = prepared.tap.linear.weight.numel()
            uses_of_all = (weights - head) * max(1.0, uses) + head * len(self.path)
        else:
            uses_of_all = weights * max(1.0, uses) * len(self.path)
        return 2.0 * uses_of_all, prepared.device

    def fitted(
        self,
        source: Source,
        keep_in: Path | None,
        batch_size: int,
        progress: Progress | None,
        features: FeatureSink | None = None,
    ) -> Scorer:
        """Return a scorer that has learnt what its head needs: itself, or a copy.

        What it learns, and what "auto" is here, are kept in the folder of a run, for a run that
        continues and for other processes at the same run, perhaps on another processor.

        Args:
            source: the data.
            keep_in: the folder of the run, or None.
            batch_size: rows at a time.
            progress: called as progress(phase, rows done, rows in all).
            features: gets the whole model's features, if class means are learnt.
        """
        if not len(source):
            return self
        twin = self
        if self._prepare().compiles(len(source)):
            # By all rows, also of a run that continues: its scores are rounded alike.
            twin = self._twin()
            twin._rows = len(source)
        if self.dtype == "auto":
            twin, device = twin._twin(), self._prepare().device
            twin.dtype = keep_dtype(
                keep_in, lambda: self._origin(source), lambda: dtypes.auto_dtype(device)
            )
        if not self._head.learns or self._learnt is not None:
            return twin
        twin = twin._twin()
        learnt = keep_learnt(
            keep_in,
            str(self.head),
            lambda: twin._origin(source),
            lambda: twin._learn(source, batch_size, progress, features),
        )
        return twin._use(learnt)

    def score_batch(self, batch: Batch | tuple[Any, Any]) -> PathScores:
        """Score a batch.

        The same row has the same score in any batch, up to the rounding of the library's
        convolutions and matrix products, which choose their kernels by shape: 1e-5 in lc in
        float32, seen on a network with 1,000 classes.

        Args:
            batch: a `Batch`, or (inputs (B, …), labels (B,)). Inputs may be a mapping of tensors.
                Where labels are no class, B targets (see `as_batch`), or None for no labels.

        Returns:
            PathScores with log_probs, on the host; NaN where a row has no finite score.

        Raises:
            ValueError: a label that the head does not know; inputs that the model cannot take;
                a head that has not been fitted.
        """
        if not isinstance(batch, Batch):
            batch = as_batch(*batch, self.label_kind)
        rows = self.score_rows(batch)
        for i, (before, after) in enumerate(zip(batch.status, rows.status, strict=True)):
            if before == OK and after == BAD_LABEL:
                raise ValueError(f"labels[{i}]: {rows.detail[i]}")
        return rows.scores

    def score_rows(
        self, batch: Batch, progress: BatchProgress | None = None, *, features: bool = False
    ) -> RowScores:
        """Score a batch of which any row may be bad: such a row keeps or gets a status.

        Args:
            batch: B rows.
            progress: not called: rows of a batch are done together.
            features: whether to return the whole model's features too; see `features_forwards`.

        Raises:
            ValueError: inputs that the model cannot take; a head not fitted.
        """
        return self.start_rows(batch, features=features)()

    def start_rows(self, batch: Batch, *, features: bool = False) -> Callable[[], RowScores]:
        """Begin to score a batch; return a function that returns its scores.

        On a GPU the function waits for scores that are still being computed.

        Args:
            batch: B rows.
            features: whether to return the whole model's features too.

        Raises:
            ValueError: see `score_rows`.
        """
        with self._lock:
            there = replace(batch, inputs=batch.inputs.to(self.input_device))
            return start_rows(there, self._head_for, self.path, self.tol, features, self.labels)

    def sample_log_probs(
        self, data: Any, samples: int, path: LearningPath | None = None
    ) -> NDArray[np.float64]:
        """Return log p (K, M) of evenly spaced rows of the data, to measure a path by.

        Args:
            data: what `open_source` takes.
            samples: most rows that are read.
            path: the K capacities, by default the scorer's own.

        Raises:
            ValueError: exits, which bring their own points; no row that can be scored.
        """
        from lc_engine.data.open import open_source

        if self.masking.brings_path:
            raise ValueError("scorer: exits bring their own points; there is nothing to calibrate")
        measured = self if path is None else self.with_path(path)
        source = open_source(data, transform=self.transform, label_kind=self.label_kind)
        return sample_log_probs(measured, source, samples)

    def describe(self) -> dict[str, Any]:
        """Return all that the scores depend on but the data, as JSON values with digests."""
        classifier = self._prepare().tap.name
        head = {"classifier": classifier, **self._head.describe(self._learnt)}
        described = super().describe() | {"head": head}
        return described if self.tol is None else described | {"tol": self.tol}

    def _head_for(self, inputs: Inputs) -> Head:
        """Return the head, built at the first inputs."""
        prepared = self._prepare()
        if self._ready_head is not None:
            built_for, asked, rows, head = self._ready_head
            if built_for is prepared and (asked, rows) == (self.dtype, self._rows):
                return head
        self._head.check_fitted(self._learnt)
        if self._learnt is not None and self._learnt.origin is not None:
            check_model(self._learnt.origin, tensors_digest(self.model.state_dict().items()))
        dtype = prepared.compute_dtype(self.dtype)
        own = prepared.views(inputs, dtype, self._rows)
        views = KeptFeatures(own, whole_point(self.masking, self.path))
        omega = torch.tensor(self.path.weights, dtype=torch.float64, device=prepared.device)
        whole = whole_point(self.masking, self.path)
        head = self._head.build(prepared, views, omega, self._learnt, dtype, whole)
        self._ready_head = (prepared, self.dtype, self._rows, head)
        return head


def _uses_of_a_weight(inputs: Inputs) -> float:
    if isinstance(inputs, Fields):
        lengths = inputs.lengths
        if lengths is not None and len(lengths):
            return float(lengths.double().mean())
        return max((_uses_of_a_weight(part) for part in inputs.values.values()), default=1.0)
    return math.prod(inputs.shape[2:]) / 256 if inputs.dim() > 3 else 1.0
