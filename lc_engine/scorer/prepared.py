"""What is computed once per model: its masked weights, thresholds, copies and the faster dtype."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from lc_engine.backbone.dtypes import DTYPES, MEASURED, Precision, unquantized_dtype
from lc_engine.backbone.families import family_of
from lc_engine.heads.linear import LinearHead, MaskedLinearHead
from lc_engine.models.classifier import Tap
from lc_engine.models.version import ModelVersion
from lc_engine.ops import contract

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lc_engine.backbone.early_exits import Exits
    from lc_engine.backbone.interface import Views
    from lc_engine.data.fields import Inputs
    from lc_engine.heads.base import ClassHead
    from lc_engine.masking import Masking
    from lc_engine.path.learning_path import LearningPath

# bfloat16 must take less than this share of float32's time to be worth its rounding.
_WORTH = 0.95


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
        self._views: dict[torch.dtype, Views] = {}
        self._faster: Precision | None = None
        first = next(iter([*self.family.weights.values(), *model.parameters()]), None)
        self.dtype = torch.float32 if first is None else first.dtype
        self.device = torch.device("cpu") if first is None else first.device

    def views(self, inputs: Inputs, dtype: torch.dtype) -> Views:
        """Return the sub-models; they are made once.

        Args:
            inputs: (N, …) of the shape that they will get, on the model's device.
            dtype: that they compute in; torch.int8 for layers, see `OptimizedCopy`.

        Raises:
            ValueError: see `BackboneFamily.views`.
        """
        if dtype not in self._views:
            self._views = {dtype: self.family.views(inputs, dtype)}
        return self._views[dtype]

    def compute_dtype(self, asked: Precision | None, inputs: Inputs) -> torch.dtype:
        """Return what the sub-models compute in.

        Args:
            asked: None for the model's own; "auto" is measured on the first inputs only.
            inputs: (N, …) on the model's device.
        """
        if asked is None:
            return self.dtype
        if asked == "auto":
            if self._faster is None:
                self._faster = self.faster_dtype(inputs)
            asked = self._faster
        return DTYPES[asked]

    def faster_dtype(self, inputs: Inputs) -> Precision:
        """Return the faster dtype, measured on these inputs (N, …), on a CPU on up to 8 of them."""
        if self.tap.name == "":  # only a head on features: no need to measure
            return "bfloat16" if contract.multiplies_bfloat16(inputs.device) else "float32"
        # Enough to measure, and little beside a run; 8 images leave a GPU idle.
        few = inputs if inputs.is_cuda else inputs[:8]
        seconds = {}
        for name in MEASURED:
            views = self.views(few, DTYPES[name])
            with torch.inference_mode():
                seconds[name] = min(_seconds(views, few) for _ in range(3))  # the first warms up
        return "bfloat16" if seconds["bfloat16"] < _WORTH * seconds["float32"] else "float32"

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


def _seconds(views: Views, inputs: Inputs) -> float:
    began = time.perf_counter()
    # Bringing a number to the host waits for a device.
    views.whole(inputs).sum().item()
    return time.perf_counter() - began
