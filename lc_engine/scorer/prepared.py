"""What is worked out once for a model's weights: where they are, their thresholds, their copies."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from lc_engine._util.digests import config_digest
from lc_engine.backbone.dtypes import DTYPES, MEASURED, Precision, beside_int8, check_int8
from lc_engine.backbone.early_exits import ExitCopy, Exits
from lc_engine.backbone.interface import OwnClassifier
from lc_engine.backbone.optimized import WorkingCopy
from lc_engine.heads.base import Head, LinearHead, MaskedLinearHead
from lc_engine.models.classifier import Tap
from lc_engine.ops import contract

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lc_engine.backbone.interface import Views
    from lc_engine.masking import Masking
    from lc_engine.path.learning_path import LearningPath

# Below this ratio of times bfloat16 is worth its rounding.
_WORTH = 0.95


class Prepared:
    """A model's sub-models, as far as they are the same for all data.

    Args:
        model: the module.
        classifier: see `find_classifier`.
        masking: which weights, and how; or exits.
        path: the capacities; exits bring their own.

    Attributes:
        path: the capacities.
        tap: the model and its classifier.
        dtype: the model's own.
        device: where it is.

    Raises:
        ValueError: see `Masking.find`, `Masking.thresholds`, `Exits.find` and `find_classifier`.
    """

    def __init__(
        self,
        model: nn.Module,
        classifier: str | None,
        masking: Masking | Exits,
        path: LearningPath,
    ) -> None:
        self.tap = Tap(model, classifier)
        self.path = path
        self._masking = masking
        self._views: dict[torch.dtype, Views] = {}
        self._exits: tuple[str, ...] = ()
        self._weights: dict[str, nn.Parameter] = {}
        if isinstance(masking, Exits):
            self._exits = masking.find(model, self.tap.name)
            self.path = masking.path(len(self._exits))
        else:
            self._weights = masking.find(model, self.tap.name)
            self._thresholds = masking.thresholds(self._weights, path)
        first = next(iter([*self._weights.values(), *model.parameters()]), None)
        self.dtype = torch.float32 if first is None else first.dtype
        self.device = torch.device("cpu") if first is None else first.device
        self._tensors = [*model.parameters(), *model.buffers()]
        self._state = self._fingerprint()

    def _fingerprint(self) -> list[tuple[int, int]]:
        return [
            (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
            for tensor in self._tensors
        ]

    def stale(self) -> bool:
        """Tell whether the model has changed since."""
        return self._fingerprint() != self._state

    def views(self, inputs: Tensor, dtype: torch.dtype) -> Views:
        """Make the sub-models, once.

        Args:
            inputs: (N, …) of the shape that they will get, on the model's device.
            dtype: that they compute in; torch.int8 for layers, see `WorkingCopy`.

        Raises:
            ValueError: the model has no layers that can be multiplied in 8 bits, or see
                `check_int8`.
        """
        if dtype not in self._views:
            self._views = {dtype: self._make(inputs, dtype)}
        return self._views[dtype]

    def _make(self, inputs: Tensor, dtype: torch.dtype) -> Views:
        if dtype == torch.int8:
            if isinstance(self._masking, Exits) or self.tap.name == "":
                raise ValueError(
                    'dtype: "int8" is for masked layers before a classifier: use "auto"'
                )
            check_int8(self.device)
        if isinstance(self._masking, Exits):
            return ExitCopy(self.tap.model, self._exits, self.tap.name, dtype)
        if self.tap.name == "":
            return OwnClassifier(self.tap)
        return WorkingCopy(
            self.tap.model,
            self._weights,
            self._thresholds,
            self._masking,
            self.tap.name,
            dtype,
            inputs,
        )

    def faster_dtype(self, inputs: Tensor) -> Precision:
        """Choose the faster dtype, by measuring it on these inputs (N, …), on a CPU on up to 8."""
        if self.tap.name == "":  # a head on features alone: known without measuring
            return "bfloat16" if contract.multiplies_bfloat16(inputs.device) else "float32"
        # Enough to tell, and little beside a run; a GPU with 8 pictures would wait, not compute.
        few = inputs if inputs.is_cuda else inputs[:8]
        seconds = {}
        for name in MEASURED:
            views = self.views(few, DTYPES[name])
            with torch.inference_mode():
                seconds[name] = min(_seconds(views, few) for _ in range(3))  # the first warms up
        return "bfloat16" if seconds["bfloat16"] < _WORTH * seconds["float32"] else "float32"

    def linear_head(self, views: Views, path_weights: Tensor, dtype: torch.dtype) -> Head:
        """Choose the head for the model's own linear classifier by what is masked.

        Args:
            views: the sub-models.
            path_weights: (K,) ω_k.
            dtype: that a masked classifier is multiplied in.

        Raises:
            ValueError: the model's classifier is not a Linear module, or the model is nothing
                else and is not masked.
        """
        module = self.tap.linear
        if dtype == torch.int8:
            dtype = beside_int8()
        names = [name for name, weight in self._weights.items() if weight is module.weight]
        if names and len(self._weights) == 1 and not isinstance(self._masking, Exits):
            if self._masking.kind != "dropout":
                thresholds = self._thresholds[:, 0]
                return MaskedLinearHead(
                    views, path_weights, module, thresholds, self._masking, names[0], dtype
                )
            if self.tap.name == "":
                raise ValueError(
                    'masking: kind="dropout" needs a model with layers before its classifier'
                )
        return LinearHead(views, path_weights, module)

    def described(self) -> dict[str, Any]:
        """Return which weights or exits were found, as JSON values."""
        if self._exits:
            return {"modules": list(self._exits)}
        return {
            "tensors": len(self._weights),
            "numel": sum(weight.numel() for weight in self._weights.values()),
            "names_digest": config_digest({"names": list(self._weights)}),
        }


def _seconds(views: Views, inputs: Tensor) -> float:
    began = time.perf_counter()
    # Bringing a number to the host waits for a device.
    views.whole(inputs).sum().item()
    return time.perf_counter() - began
