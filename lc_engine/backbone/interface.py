"""Views: the interface through which heads run a model's sub-models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from torch import Tensor

    from lc_engine.data.fields import Inputs
    from lc_engine.models.classifier import Tap

    # From outputs, targets and the number of rows to the negative log-likelihoods (n,).
    RowLoss = Callable[[Any, Any, int], Tensor]


class Views(Protocol):
    """The K sub-models of a model."""

    @property
    def widths(self) -> tuple[int, ...]:
        """D_k of each sub-model where they differ, else empty."""
        ...

    def features(self, inputs: Inputs, points: Sequence[int]) -> Tensor | Sequence[Tensor]:
        """Return the features (N, D_k) of inputs (N, …) for each of the sub-models `points`."""
        ...

    def logits(self, inputs: Inputs, points: Sequence[int]) -> Tensor | Sequence[Tensor]:
        """Return the logits (N, C) of the model's own classifier for each of them."""
        ...

    def losses(
        self, inputs: Inputs, targets: Sequence[Any], points: Sequence[int], loss: RowLoss
    ) -> Tensor:
        """Return loss(outputs, targets, n) of n rows at a time, for each of them: (P, N).

        Args:
            inputs: (N, …).
            targets: N, on the host; they come together as `collated` does it.
            points: sub-models.
            loss: from the outputs of the model and the targets of n rows to (n,).
        """
        ...

    def whole(self, inputs: Inputs) -> Tensor:
        """Return the features (N, D) of the model with all its weights."""
        ...


@runtime_checkable
class GivesBoth(Protocol):
    """Sub-models whose features and logits come from one forward."""

    def features_and_logits(self, inputs: Inputs, point: int) -> tuple[Tensor, Tensor]:
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

    def features(self, inputs: Inputs, points: Sequence[int]) -> Sequence[Tensor]:
        """Return the inputs, once per sub-model."""
        return [self.whole(inputs)] * len(points)

    def logits(self, inputs: Inputs, points: Sequence[int]) -> Sequence[Tensor]:
        """Refuse: a masked classifier is left to the head."""
        raise NotImplementedError

    def losses(
        self, inputs: Inputs, targets: Sequence[Any], points: Sequence[int], loss: RowLoss
    ) -> Tensor:
        """Refuse: nothing but a head masks the model.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "a model that is one Linear module is its own classifier: put it into an nn.Sequential "
            'for a loss, with Masking(weights="all")'
        )

    def whole(self, inputs: Inputs) -> Tensor:
        """Return the inputs, in the dtype of the classifier.

        Raises:
            ValueError: their width is not the classifier's.
        """
        return self._tap.features(inputs.to(self._tap.linear.weight.dtype))
