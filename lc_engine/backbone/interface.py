"""Views: how heads see the sub-models of a model, whatever family these are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lc_engine.models.classifier import Tap


class Views(Protocol):
    """The K sub-models of a model.

    Attributes:
        widths: D_k of each sub-model where they differ, else nothing.
    """

    widths: tuple[int, ...]

    def features(self, inputs: Tensor, points: Sequence[int]) -> Tensor | Sequence[Tensor]:
        """Give the features (N, D_k) of inputs (N, …) for each of the sub-models `points`."""
        ...

    def logits(self, inputs: Tensor, points: Sequence[int]) -> Tensor | Sequence[Tensor]:
        """Give what the model's own classifier makes of them, (N, C) for each."""
        ...

    def whole(self, inputs: Tensor) -> Tensor:
        """Give the features (N, D) of the model with all its weights."""
        ...


class OwnClassifier:
    """A model that is nothing but its classifier: the inputs are the features.

    Args:
        tap: the model.
    """

    widths: tuple[int, ...] = ()

    def __init__(self, tap: Tap) -> None:
        self._tap = tap

    def features(self, inputs: Tensor, points: Sequence[int]) -> Sequence[Tensor]:
        """Give the inputs."""
        return [self.whole(inputs)] * len(points)

    def logits(self, inputs: Tensor, points: Sequence[int]) -> Sequence[Tensor]:
        """Refuse: a masked classifier is the head's business, not the model's."""
        raise NotImplementedError

    def whole(self, inputs: Tensor) -> Tensor:
        """Give the inputs, in the dtype of the classifier.

        Raises:
            ValueError: they have not the width of the classifier.
        """
        return self._tap.features(inputs.to(self._tap.linear.weight.dtype))
