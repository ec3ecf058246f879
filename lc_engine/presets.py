"""The two published methods, as published.

`dlc2025` is "Exploring Learning Complexity for Efficient Downstream Dataset Pruning" (arXiv
2402.05356 v2, ICLR 2025) and its code; `lc2024` is version 1 of the same paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from lc_engine.backbone.early_exits import Exits
from lc_engine.masking import Masking
from lc_engine.models.pooling import first_tensor
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.scorer import Scorer

if TYPE_CHECKING:
    from torch import Tensor


def dlc2025(model: nn.Module, *, parity: bool = False, **more: Any) -> Scorer:
    """Return the scorer of version 2; its score is the column `loss` (high = hard).

    Prototypes with the inverse distance as logit, under 50 global magnitude masks that each take
    2 % of what is left: of the convolutions, or of the linear layers outside the head where the
    model is a transformer.

    Args:
        model: with its classifier.
        parity: whether to follow the released code where that changes numbers: a
            transformer's tokens (N, T, D) are averaged to one number per sample. (That code also
            scores randomly augmented images; pass such data to do so too.)
        more: further arguments of `Scorer`.

    Raises:
        ValueError: parity with a transformer that has no `forward_features` (timm's have).
    """
    transformer = _is_transformer(model)
    if parity and transformer:
        model, more = _OneNumber(model), more | {"classifier": None}
    return Scorer(
        model,
        head="prototype",
        path=LearningPath.geometric(50, 0.02),
        masking=Masking(weights="body" if not transformer else _linear_layers),
        logit="inverse_distance",
        **more,
    )


def lc2024(model: nn.Module, *, neighbours: int = 10, **more: Any) -> Scorer:
    """Return the scorer of version 1 for images; its score is the column `lc` (high = easy).

    The network cut off after each of its blocks; the share of the label among the nearest
    neighbours of the pooled features there, weighted by 1/distance.

    Args:
        model: with its classifier.
        neighbours: number that counts; the paper does not say how many it used.
        more: further arguments of `Scorer`, such as `masking=Exits(("layer1", …))`.
    """
    settings: dict[str, Any] = {"head": "knn", "masking": Exits(), "neighbours": neighbours}
    return Scorer(model, **settings | more)


def _is_transformer(model: nn.Module) -> bool:
    """Return whether most weights are linear and there are layer norms, as in a transformer."""
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    convolution = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    norms = any(isinstance(m, nn.LayerNorm) for m in model.modules())
    return norms and linear > convolution


def _linear_layers(name: str, module: nn.Module) -> bool:
    return not isinstance(module, nn.modules.conv._ConvNd) and not name.endswith("head")


class _OneNumber(nn.Module):
    """A transformer whose tokens are averaged to one number, as in the released code."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not callable(getattr(model, "forward_features", None)):
            raise ValueError("parity: the transformer must have forward_features, as timm's have")
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        features: Any = self.model.forward_features
        return first_tensor(features(pixels)).flatten(1).mean(1, keepdim=True)
