"""The softmax of logits that torch multiplies in bfloat16, tile by tile.

Where a processor has AMX, torch's products of bfloat16 are several times as fast as a loop over
vectors, but they leave a tensor of logits, rounded to bfloat16. The C++ core takes such a tensor
into an online softmax (Milakov & Gimelshein, arXiv 1805.02867) in one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from lc_engine.ops import arrays, contract

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_LN2 = float(np.log(2))
_LOWEST = -3.0e38  # of a logit: less than all that count


class SoftmaxTiles:
    """The softmaxes of some rows over the classes taken in so far.

    Args:
        rows: their number.
        entropy: whether to keep what an entropy needs.
    """

    def __init__(self, rows: int, *, entropy: bool = False) -> None:
        self._largest = np.full(rows, _LOWEST, dtype=np.float32)
        self._total = np.zeros(rows, dtype=np.float32)
        self._moment = np.zeros(rows, dtype=np.float32) if entropy else None
        self._chosen = np.zeros(rows, dtype=np.float32)

    def take_in(
        self,
        logits: Tensor,
        *,
        rows: slice = slice(None),
        lost: Tensor | None = None,
        bias: Tensor | None = None,
        labels: Tensor | None = None,
        first: int = 0,
    ) -> None:
        """Take in a tile of logits.

        Args:
            logits: (rows, classes) contiguous bfloat16.
            rows: which of the rows they are of.
            lost: what is to be added to them, alike.
            bias: (classes,) float32.
            labels: (rows,) contiguous int64, of all classes.
            first: the class of the first logit.
        """
        contract.native().take_logits(
            arrays.host_array(logits),
            None if lost is None else arrays.host_array(lost),
            arrays.host_floats(bias),
            None if labels is None else labels.numpy(),
            first,
            self._largest[rows],
            self._total[rows],
            None if self._moment is None else self._moment[rows],
            self._chosen[rows],
            torch.get_num_threads(),
        )

    def log_probs(self, *, labelled: bool) -> NDArray[np.float32]:
        """Return log p (rows,) of the labels, or the largest where none was given."""
        at = self._chosen.astype(np.float64) - self._largest if labelled else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p = (at - np.log2(self._total.astype(np.float64))) * _LN2
        return np.minimum(log_p, 0).astype(np.float32)

    def close(self) -> tuple[Tensor, Tensor | None]:
        """Return −log p of the labels and, if it was asked for, the entropy (rows,), in nats."""
        nll = torch.from_numpy(0 - self.log_probs(labelled=True))
        if self._moment is None:
            return nll, None
        total = self._total.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = (np.log2(total) - self._moment / total) * _LN2
        return nll, torch.from_numpy(entropy.astype(np.float32))
