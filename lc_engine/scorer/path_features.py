"""Features of all sub-models, in place of the inputs that they were computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lc_engine._util.transfer import download, upload
from lc_engine.backbone.masked_weights import WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


class PathFeatures:
    """Features of N rows under K sub-models and the whole model, used where inputs would be.

    Args:
        features: (K, N, D) of the sub-models.
        whole: (N, D) of the whole model.
    """

    def __init__(self, features: Tensor, whole: Tensor) -> None:
        both = torch.cat([features, whole.to(features.dtype).unsqueeze(0)])
        by_row = both.transpose(0, 1).contiguous()
        self.nbytes: int = by_row.nbytes
        self._rows = len(by_row)
        # They may still be on the way to the host.
        self._arrived: Callable[[], list[Tensor]] = download([by_row])

    @classmethod
    def _of(cls, values: Tensor) -> PathFeatures:
        made = object.__new__(cls)
        made.nbytes, made._rows, made._arrived = values.nbytes, len(values), lambda: [values]
        return made

    @property
    def values(self) -> Tensor:
        """(N, K + 1, D), the whole model last."""
        return self._arrived()[0]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    @property
    def is_cuda(self) -> bool:
        """Whether they are on a GPU."""
        return self.values.is_cuda

    def __len__(self) -> int:
        """Return N."""
        return self._rows

    def __getitem__(self, rows: Any) -> PathFeatures:
        """Return some rows: a slice, a mask (N,) or indices."""
        return self._of(self.values[rows])

    def __add__(self, others: PathFeatures) -> PathFeatures:
        """Return these rows and others after them."""
        return self._of(torch.cat([self.values, others.values]))

    def to(self, device: torch.device) -> PathFeatures:
        """Return them on a device."""
        return self._of(upload(self.values, device))

    def at(self, points: Sequence[int]) -> Tensor:
        """Return the features (P, N, D) of sub-models; `WHOLE` is the whole model."""
        values = self.values
        return torch.stack([values[:, values.shape[1] - 1 if k == WHOLE else k] for k in points])
