"""The head of any loss: log p of a row is the negative of what a function of the user's returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from lc_engine.data.targets import IGNORED
from lc_engine.heads.base import Head
from lc_engine.heads.loss_digest import loss_digest
from lc_engine.models.pooling import first_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lc_engine.backbone.interface import Views
    from lc_engine.heads.base import Rows


@dataclass(frozen=True)
class Loss:
    """A negative log-likelihood per row, in place of a head.

    Attributes:
        fn: fn(outputs, targets) -> (N,) in nats: what the model returns for N rows, and their
            targets as one (see `data.fields.collated`). A loss that is none, such as a squared
            error, makes exp(−loss) a pseudo-likelihood.
    """

    fn: Callable[[Any, Any], Tensor]

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise ValueError(f"Loss takes a function, got {type(self.fn).__name__}")

    @property
    def name(self) -> str:
        """Module and name of the function."""
        own = getattr(self.fn, "func", self.fn)  # of a functools.partial
        kind = type(own)
        module = getattr(own, "__module__", kind.__module__)
        return f"{module}:{getattr(own, '__qualname__', kind.__name__)}"

    def describe(self) -> dict[str, Any]:
        """Return what runs must share to be one; see `loss_digest`."""
        digest, not_compared = loss_digest(self.fn)
        described: dict[str, Any] = {"loss": self.name, "loss_digest": digest}
        if not_compared:
            described["loss_not_compared"] = not_compared
        return described


class LossHead(Head):
    """Sub-models under a loss of the user's own.

    Args:
        views: the sub-models.
        path_weights: (K,) ω_k.
        loss: the negative log-likelihood.
    """

    def __init__(self, views: Views, path_weights: Tensor, loss: Loss) -> None:
        super().__init__(views, path_weights)
        self._loss = loss

    def class_index(self, labels: Tensor) -> Tensor:
        """Return zeros: rows are compared with their targets."""
        return torch.zeros_like(labels)

    def reject_reason(self, label: int) -> str:
        """Never called: no label is refused."""
        raise NotImplementedError

    def log_probs(self, rows: Rows, points: Sequence[int]) -> Tensor:
        """Return log p (P, N)."""
        assert rows.targets is not None
        return -self.views.losses(rows.inputs, rows.targets, points, self._values)

    def _values(self, outputs: Any, targets: Any, rows: int) -> Tensor:
        """Return the values (N,) of the function.

        Raises:
            ValueError: it returns something else.
        """
        values = self._loss.fn(outputs, targets)
        if (
            not isinstance(values, Tensor)
            or values.shape != (rows,)
            or not values.is_floating_point()
            or values.is_meta
        ):
            found = (
                f"{values.dtype} of shape {tuple(values.shape)} on {values.device}"
                if isinstance(values, Tensor)
                else type(values).__name__
            )
            raise ValueError(
                f"loss: {self._loss.name} must return a negative log-likelihood per "
                f"row, floating point of shape ({rows},), got {found}: sum or average over all but "
                "the first dimension"
            )
        return values.to(torch.promote_types(values.dtype, torch.float32))


def token_nll(outputs: Any, targets: Any) -> Tensor:
    """Return the mean of −log p over the labelled tokens of each row, of a token classifier.

    Args:
        outputs: with logits (N, T, C).
        targets: (N, T') classes of the tokens, T' ≥ T, or N of (T_i,); `IGNORED` where a token is
            not counted.

    Returns:
        (N,) float32; NaN for a row without a labelled token.
    """
    logits = first_tensor(outputs)
    wanted = logits.new_full(logits.shape[:2], IGNORED, dtype=torch.int64)
    for row, own in enumerate(targets):
        count = min(len(own), wanted.shape[1])
        wanted[row, :count] = own[:count]
    nll = functional.cross_entropy(
        logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(wanted)
    return nll.sum(1) / (wanted != IGNORED).sum(1)
