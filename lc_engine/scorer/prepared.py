"""What is computed once per model: its masked weights, thresholds and copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from lc_engine.backbone import compiled, dtypes
from lc_engine.backbone.dtypes import DTYPES, Precision, unquantized_dtype
from lc_engine.backbone.families import family_of
from lc_engine.heads.linear import LinearHead, MaskedLinearHead
from lc_engine.models.classifier import Tap
from lc_engine.models.version import ModelVersion
from lc_engine.scorer.path_features import PathFeatures

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lc_engine.backbone.early_exits import Exits
    from lc_engine.backbone.interface import Views
    from lc_engine.data.fields import Inputs
    from lc_engine.heads.base import ClassHead
    from lc_engine.masking import Masking
    from lc_engine.path.learning_path import LearningPath

MODEL_CHANGED: Final = (
    "the model was changed while its features were scored: leave it as it is during a run, and "
    "start the run again"
)


class Prepared:
    """A model's sub-models: all of a scorer that does not depend on the data.

    Args:
        model: the module.
        classifier: see `find_classifier`.
        masking: which weights, and how; or exits.
        path: the capacities; exits bring their own.

    Attributes:
        tap: the model and its classifier.
        family: its sub-models.
        dtype: the model's own.
        device: where it is.
        version: that the sub-models are of.

    Raises:
        ValueError: see `family_of` and `find_classifier`.
    """

    def __init__(
        self,
        model: nn.Module,
        classifier: str | None,
        masking: Masking | Exits,
        path: LearningPath,
    ) -> None:
        self.version = ModelVersion(model)
        self.tap = Tap(model, classifier)
        self.family = family_of(masking, self.tap, path)
        self._views: dict[tuple[torch.dtype, bool], Views] = {}
        first = next(iter([*self.family.weights.values(), *model.parameters()]), None)
        self.dtype = torch.float32 if first is None else first.dtype
        self.device = torch.device("cpu") if first is None else first.device

    def compiles(self, rows: int) -> bool:
        """Return whether compiling the forwards of a job over so many rows pays."""
        points = 1 if self.family.head_mask is not None else len(self.family.path)
        return compiled.pays(self.device, rows, points)

    def views(self, inputs: Inputs, dtype: torch.dtype, rows: int = 0) -> Views:
        """Return the sub-models; they are made once.

        Args:
            inputs: (N, …) of the shape that they will get, on the model's device.
            dtype: that they compute in; torch.int8 for layers, see `OptimizedCopy`.
            rows: of the job, which say whether compiling pays.

        Raises:
            ValueError: see `BackboneFamily.views`.
        """
        kind = (dtype, self.compiles(rows))
        if kind not in self._views:
            if isinstance(inputs, PathFeatures):
                raise ValueError(MODEL_CHANGED)
            self._views = {kind: self.family.views(inputs, *kind)}
        return self._views[kind]

    def compute_dtype(self, asked: Precision | None) -> torch.dtype:
        """Return what the sub-models compute in: the model's own dtype for None."""
        if asked is None:
            return self.dtype
        return DTYPES[dtypes.auto_dtype(self.device) if asked == "auto" else asked]

    def linear_head(self, views: Views, path_weights: Tensor, dtype: torch.dtype) -> ClassHead:
        """Return the head for the model's own linear classifier.

        Args:
            views: the sub-models.
            path_weights: (K,) ω_k.
            dtype: that a masked classifier is multiplied in.

        Raises:
            ValueError: the model's classifier is not a Linear module.
        """
        module, mask = self.tap.linear, self.family.head_mask
        if mask is None:
            return LinearHead(views, path_weights, module)
        if dtype == torch.int8:
            dtype = unquantized_dtype()
        return MaskedLinearHead(views, path_weights, module, mask, dtype)
