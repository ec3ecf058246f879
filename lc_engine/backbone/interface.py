"""Views: the interface through which heads run a model's sub-models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lc_engine.models.classifier import Tap


class Views(Protocol):
    """The K sub-models of a model."""

    @property
    def widths(self) -> tuple[int, ...]:
        """D_k of each sub-model where they differ, else empty."""
        ...

    def features(self, inputs: Tensor, points: Sequence[int]) -> Tensor | Sequence[Tensor]:
        """Return the features (N, D_k) of inputs (N, …) for each of the sub-models `points`."""
        ...

    def logits(self, inputs: Tensor, points: Sequence[int]) -> Tensor | Sequence[Tensor]:
        """Return the logits (N, C) of the model's own classifier for each of them."""
        ...

    def whole(self, inputs: Tensor) -> Tensor:
        """Return the features (N, D) of the model with all its weights."""
        ...


@runtime_checkable
class GivesBoth(Protocol):
    """Sub-models whose features and logits come from one forward."""

    def features_and_logits(self, inputs: Tensor, point: int) -> tuple[Tensor, Tensor]:
        """Return features (N, D) and logits (N, C) of inputs (N, …) for one sub-model."""
        ...


class OwnClassifier:
    """A model that is only its classifier: the inputs are the features.

    Args:
        tap: the model.
    """

    widths: tuple[int, ...] = ()

    def __init__(self, tap: Tap) -> None:
        self._tap = tap

    def features(self, inputs: Tensor, points: Sequence[int]) -> Sequence[Tensor]:
        """Return the inputs, once per sub-model."""
        return [self.whole(inputs)] * len(points)

    def logits(self, inputs: Tensor, points: Sequence[int]) -> Sequence[Tensor]:
        """Refuse: a masked classifier is left to the head."""
        raise NotImplementedError

    def whole(self, inputs: Tensor) -> Tensor:
        """Return the inputs, in the dtype of the classifier.

        Raises:
            ValueError: their width is not the classifier's.
        """
        return self._tap.features(inputs.to(self._tap.linear.weight.dtype))
