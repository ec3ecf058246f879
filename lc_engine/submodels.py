"""The sub-models of a module: what all families share, and masks in the module itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from lc_engine import ops
from lc_engine._util.digests import config_digest
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO, find_classifier
from lc_engine.models.state import ModelState, run_to_end
from lc_engine.ops.levels import TIE_RULE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from torch import Tensor, nn

    from lc_engine.masking import MaskAccount, Masks
    from lc_engine.ops.saliency import Saliency
    from lc_engine.path.learning_path import LearningPath


class HeadMask(NamedTuple):
    """How a head is masked: in sub-model k, weights with saliency s ≥ t_k stay.

    Attributes:
        thresholds: (K,) float64 t_k.
        saliency: what is compared with it, as the operators take it; None for |w|.
    """

    thresholds: Tensor
    saliency: Saliency

    def at(self, k: int) -> HeadMask:
        """Return the mask of sub-model k alone, K = 1."""
        return HeadMask(self.thresholds[k : k + 1], self.saliency)


class Family:
    """The K sub-models of one model: by masks, by dropout or by early exits.

    Attributes:
        path: the K points.
        weights: the masked weights by name; none where no weight is masked.
    """

    def __init__(self, path: LearningPath, weights: Mapping[str, Tensor]) -> None:
        self.path = path
        self.weights = weights

    @property
    def head_mask(self) -> HeadMask | None:
        """The mask that is left to the head, None where the head is used as it is."""
        return None

    @property
    def account(self) -> MaskAccount | None:
        """What the masks reach; None where no weight is masked and none could be."""
        return None

    def describe(self) -> dict[str, Any]:
        """Return which weights are masked, as JSON values."""
        return {
            "tensors": len(self.weights),
            "numel": sum(weight.numel() for weight in self.weights.values()),
            "names_digest": config_digest({"names": list(self.weights)}),
        }


def describe_ties(masks: Masks) -> dict[str, Any]:
    """Return which rule broke the ties of masks, as JSON values; nothing where none was needed."""
    return {"ties": TIE_RULE} if masks.breaks_ties else {}


class Submodels:
    """The masked sub-models of a module, one at a time, in the module itself.

        with Submodels(model, path) as submodels:
            for k in range(len(path)):
                submodels.at(k)
                outputs = model(inputs)

    Inside the context the module is in evaluation mode. Its weights, buffers and training flags
    are restored bit for bit, whatever ends the context. It holds one copy of the masked
    weights.

    Args:
        model: the module; its weights are written in place.
        path: the K capacities.
        masking: which weights, and how; the default is `Masking()`.
        head: name of the classifier module, which "body" leaves alone; "auto" finds it, None
            says that there is none.

    Attributes:
        weights: the masked parameters by name.
        masks: their thresholds, and what is compared with them.

    Raises:
        ValueError: see `Masking.find`, `Masking.thresholds` and `find_classifier`.
    """

    def __init__(
        self,
        model: nn.Module,
        path: LearningPath,
        masking: Masking | None = None,
        *,
        head: str | None = AUTO,
    ) -> None:
        self.model = model
        self.path = path
        self.masking = Masking() if masking is None else masking
        if self.masking.kind == "dropout":
            raise ValueError('masking: kind="dropout" masks no weight: it is for a Scorer')
        self.weights = self.masking.find(model, find_classifier(model, head))
        self.masks = self.masking.masks(self.weights, path)
        self._live: list[Tensor] = []
        self._pristine: list[Tensor] = []
        self._target: list[Tensor] = []
        self._state: ModelState | None = None

    @property
    def thresholds(self) -> Tensor:
        """(K, T) t_k of each masked parameter, float64 on the host."""
        return self.masks.thresholds

    def __enter__(self) -> Submodels:
        if self._state is not None:
            raise RuntimeError("this Submodels is in use already: one `with` at a time")
        # .data has no version counter: a pending backward pass stays valid, as it is once the
        # weights are restored.
        self._live = [parameter.data for parameter in self.weights.values()]
        self._pristine = [live.clone(memory_format=torch.contiguous_format) for live in self._live]
        # The operator takes contiguous tensors; a weight in another layout is staged.
        self._target = [
            live if live.is_contiguous() else torch.empty_like(whole)
            for live, whole in zip(self._live, self._pristine, strict=True)
        ]
        self._state = ModelState(self.model)
        try:
            self.model.eval()
        except BaseException:
            run_to_end(self._restore)
            raise
        return self

    def at(self, k: int) -> None:
        """Make the module sub-model k; 0 is the densest.

        Raises:
            ValueError: k outside [0, K).
            RuntimeError: outside the context.
        """
        if self._state is None:
            raise RuntimeError("at() works inside `with Submodels(...)` only")
        if not 0 <= k < len(self.path):
            raise ValueError(f"k must lie in [0, {len(self.path)}), got {k}")
        # What a forward writes to a buffer must not reach the next sub-model.
        self._state.put_back_buffers()
        ops.apply_thresholds(
            self._pristine,
            self._target,
            self.thresholds[k].tolist(),
            self.masks.saliency,
            dropped=self.masks.dropped_at(k),
        )
        for live, target in zip(self._live, self._target, strict=True):
            if target is not live:
                live.copy_(target)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run_to_end(self._restore)

    def _restore(self) -> None:
        if self._state is None:
            return
        for live, whole in zip(self._live, self._pristine, strict=True):
            live.copy_(whole)
        self._state.put_back()
        self._state = None
        self._live, self._pristine, self._target = [], [], []
