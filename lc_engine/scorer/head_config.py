"""Which head a scorer has: its settings, what it learns, and how it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from lc_engine.heads.knn import KNNHead, memory_bank_of
from lc_engine.heads.labels import SoftLabels, WithoutLabels
from lc_engine.heads.loss import Loss, LossHead
from lc_engine.heads.memory_bank import MemoryBank
from lc_engine.heads.prototype import PrototypeHead, Prototypes, class_means
from lc_engine.ops.prototype_confidence import Logit

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from lc_engine.backbone.interface import Views
    from lc_engine.data.batch import Batch, Source
    from lc_engine.data.fields import Inputs
    from lc_engine.data.protocols import FeatureSink, Progress
    from lc_engine.data.targets import LabelKind
    from lc_engine.heads.base import ClassHead, Head
    from lc_engine.scorer.learnt import Learnt
    from lc_engine.scorer.prepared import Prepared

HeadKind = Literal["prototype", "linear", "knn"]
# What a scorer compares rows with: a class, a distribution over the classes, or nothing.
Labels = Literal["class", "soft"] | None


@dataclass(frozen=True)
class HeadConfig:
    """The head of a scorer; see `Scorer` for the fields.

    Raises:
        ValueError: naming the field that does not fit.
    """

    kind: HeadKind | Loss
    logit: Logit
    temperature: float
    neighbours: int
    labels: Labels = "class"

    def __post_init__(self) -> None:
        if not isinstance(self.kind, Loss) and self.kind not in get_args(HeadKind):
            raise ValueError(
                f"head must be one of {get_args(HeadKind)} or a Loss, got {self.kind!r}"
            )
        if self.labels not in ("class", "soft", None):
            raise ValueError(f'labels must be "class", "soft" or None, got {self.labels!r}')
        if self.labels != "class" and self.kind not in ("linear", "prototype"):
            name = "loss" if isinstance(self.kind, Loss) else self.kind
            raise ValueError(
                f"labels={self.labels!r} needs the probability of every class, which a {name} head "
                'does not give: use head="linear" or "prototype"'
            )
        if self.logit not in get_args(Logit):
            raise ValueError(f"logit must be one of {get_args(Logit)}, got {self.logit!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {self.neighbours}")

    @property
    def learns(self) -> bool:
        """Whether the head learns from the data."""
        return self.kind in ("prototype", "knn")

    @property
    def label_kind(self) -> LabelKind:
        """What the labels of the data are to be."""
        if isinstance(self.kind, Loss):
            return "any"
        return "none" if self.labels is None else self.labels

    def learn(
        self,
        source: Source,
        whole: Callable[[Inputs], tuple[Tensor, tuple[int, ...]]],
        along_the_path: Callable[[Tensor], list[Tensor]],
        points: int,
        batch_size: int,
        progress: Progress | None,
        sink: FeatureSink | None = None,
        *,
        device: torch.device,
        along: Callable[[Batch, int, Tensor | None], None] | None = None,
    ) -> Learnt:
        """Return what the head learns from the data; see `class_means` and `memory_bank_of`.

        Raises:
            ValueError: class means, and there are no labels; or see there.
        """
        if self.labels is None:
            raise ValueError(
                "labels=None: class means are learnt from labels: give prototypes of your own with "
                'use_prototypes, or use head="linear"'
            )
        if self.kind == "knn":
            return memory_bank_of(source, along_the_path, points, batch_size, progress)
        return class_means(source, whole, batch_size, progress, sink, device=device, along=along)

    def build(
        self,
        prepared: Prepared,
        views: Views,
        path_weights: Tensor,
        learnt: Learnt | None,
        dtype: torch.dtype,
        whole: int | None,
    ) -> Head:
        """Return the head of prepared sub-models.

        Args:
            prepared: the model.
            views: its sub-models.
            path_weights: (K,) ω_k.
            learnt: what the head learnt.
            dtype: that a masked classifier is multiplied in.
            whole: the point of the path that is the whole model, None if there is none.

        Raises:
            ValueError: the head has learnt nothing yet, or see `Prepared.linear_head`.
        """
        if isinstance(self.kind, Loss):
            return LossHead(views, path_weights, self.kind)
        if isinstance(learnt, MemoryBank):
            return KNNHead(views, path_weights, learnt, self.neighbours)
        head: ClassHead
        if isinstance(learnt, Prototypes):
            head = PrototypeHead(views, path_weights, learnt, self.logit, self.temperature)
        else:
            head = prepared.linear_head(views, path_weights, dtype)
        if self.labels == "soft":
            return SoftLabels(head)
        return WithoutLabels(head, whole) if self.labels is None else head

    def check_fitted(self, learnt: Learnt | None) -> None:
        """Refuse to score before the head has learnt.

        Raises:
            ValueError: saying what to call.
        """
        if learnt is None and self.learns:
            lacks = "rows to look in" if self.kind == "knn" else "prototypes"
            name = "kNN" if self.kind == "knn" else str(self.kind)
            raise ValueError(f"the {name} head has no {lacks} yet: call fit(source) first")

    def describe(self, learnt: Learnt | None) -> dict[str, Any]:
        """Return the settings that matter to the head, as JSON values, and what it learnt."""
        if isinstance(self.kind, Loss):
            return {"kind": "loss", **self.kind.describe()}
        described: dict[str, Any] = {"kind": self.kind}
        if self.labels != "class":
            described["labels"] = self.labels
        if self.kind == "prototype":
            described |= {"logit": self.logit, "temperature": self.temperature}
        if self.kind == "knn":
            described["neighbours"] = self.neighbours
        if learnt is not None:
            described["bank" if self.kind == "knn" else "prototypes"] = learnt.digest
        return described
