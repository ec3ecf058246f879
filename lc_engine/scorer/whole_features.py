"""Features of the whole model that scoring computes in any case, kept as it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine.backbone.early_exits import Exits
from lc_engine.backbone.interface import GivesBoth
from lc_engine.backbone.masked_weights import WHOLE
from lc_engine.scorer.path_features import PathFeatures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from torch import Tensor

    from lc_engine.backbone.interface import RowLoss, Views
    from lc_engine.data.fields import Inputs
    from lc_engine.masking import Masking
    from lc_engine.path.learning_path import LearningPath


def whole_point(masking: Masking | Exits, path: LearningPath) -> int | None:
    """Return the point of the path that is the whole model: the deepest exit, or capacity 1.

    Under dropout there is none: its capacities are rates.
    """
    if isinstance(masking, Exits):
        return 0
    if masking.kind == "dropout" or 1.0 not in path.capacities:
        return None
    return path.capacities.index(1.0)


class KeptFeatures:
    """Sub-models that keep the whole model's features of a batch, if they are asked to.

    Args:
        views: the sub-models.
        whole: the point that is the whole model, or None.

    Attributes:
        widths: of the sub-models.
    """

    def __init__(self, views: Views, whole: int | None) -> None:
        self._views, self._whole = views, whole
        self._rows = 0
        self._kept: Tensor | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """D_k of each sub-model where they differ, else empty."""
        return self._views.widths

    def keep(self, rows: int) -> None:
        """Keep the features of the next inputs of so many rows; 0 keeps none."""
        self._rows, self._kept = rows, None

    def kept(self, inputs: Inputs) -> Tensor:
        """Return the features (N, D) of the inputs: those kept, else by a forward of their own."""
        found, self._kept, self._rows = self._kept, None, 0
        if isinstance(inputs, PathFeatures):
            return inputs.at([WHOLE])[0]
        if found is None:
            found = self._views.whole(inputs)
            return found[:, : self.widths[0]] if self.widths else found
        return found

    def features(self, inputs: Inputs, points: Sequence[int]) -> Tensor | Sequence[Tensor]:
        """Return the features of sub-models; see `Views.features`."""
        if isinstance(inputs, PathFeatures):
            return inputs.at(points)
        found = self._views.features(inputs, points)
        if self._wanted(inputs, points):
            assert self._whole is not None
            self._kept = found[points.index(self._whole)]
        return found

    def logits(self, inputs: Inputs, points: Sequence[int]) -> Tensor | Sequence[Tensor]:
        """Return the logits of sub-models; see `Views.logits`."""
        whole = self._whole
        if not self._wanted(inputs, points) or not isinstance(self._views, GivesBoth):
            return self._views.logits(inputs, points)
        assert whole is not None
        self._kept, logits = self._views.features_and_logits(inputs, whole)
        others = [k for k in points if k != whole]
        rest = iter(self._views.logits(inputs, others) if others else ())
        return [logits if k == whole else next(rest) for k in points]

    def losses(
        self, inputs: Inputs, targets: Sequence[Any], points: Sequence[int], loss: RowLoss
    ) -> Tensor:
        """Return the losses of sub-models; see `Views.losses`."""
        return self._views.losses(inputs, targets, points, loss)

    def whole(self, inputs: Inputs) -> Tensor:
        """Return the features of the model with all its weights; see `Views.whole`."""
        found = self._views.whole(inputs)
        if self._rows == len(inputs):
            self._kept = found
        return found

    def _wanted(self, inputs: Inputs, points: Sequence[int]) -> bool:
        return self._rows == len(inputs) and self._whole is not None and self._whole in points
