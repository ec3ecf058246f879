"""Preference pairs: two responses of a row, scored beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lc_engine.language.tokens import Encoded, Tokens
from lc_engine.path.reduction import reduce_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from lc_engine.data.protocols import BatchProgress


@dataclass(frozen=True, eq=False)
class Pairs:
    """The chosen and the rejected conversations of M rows; `Batch.inputs` of preference pairs."""

    chosen: list[Tokens]
    rejected: list[Tokens]

    def __len__(self) -> int:
        """Return M."""
        return len(self.chosen)

    def __getitem__(self, rows: slice) -> Pairs:
        """Return some of the rows."""
        return Pairs(self.chosen[rows], self.rejected[rows])

    def __add__(self, later: Pairs) -> Pairs:
        """Return the rows of both."""
        return Pairs(self.chosen + later.chosen, self.rejected + later.rejected)


def joined(chosen: Encoded, rejected: Encoded) -> Encoded:
    """Return the first conversation that has no tokens, else the chosen one; details of both."""
    named = (("chosen", chosen), ("rejected", rejected))
    detail = "; ".join(f"{name}: {one.detail}" for name, one in named if one.detail)
    for _, one in named:
        if one.tokens is None:
            return Encoded(None, one.status, detail)
    return chosen._replace(detail=detail)


def halved(progress: BatchProgress | None) -> BatchProgress | None:
    """Return a callback for twice the rows, which tells another one of pairs."""
    if progress is None:
        return None
    return lambda done: progress(done // 2)


def beside(scores: Mapping[str, Tensor], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the columns of M pairs.

    Args:
        scores: `nll` (K, 2 M) and columns (2 M,) by name, the chosen conversations before the
            rejected ones.
        weights: ω_k (K,) of the path.

    Returns:
        `nll` (K, M) and the columns (M,) of the chosen conversations, the latter also of the
        rejected ones, as NAME_rejected; `lc_chosen`, `loss_chosen`, `lc_rejected` and
        `loss_rejected`; and `margin` = lc_chosen − lc_rejected.
    """
    columns: dict[str, Tensor] = {}
    for name, values in scores.items():
        rows = values.shape[-1] // 2
        columns[name] = values[..., :rows]
        if name == "nll":
            for which, nll in (("chosen", values[:, :rows]), ("rejected", values[:, rows:])):
                reduced = reduce_path(-nll.numpy(), weights)
                columns[f"lc_{which}"] = torch.from_numpy(reduced.lc)
                columns[f"loss_{which}"] = torch.from_numpy(reduced.loss)
        else:
            columns[f"{name}_rejected"] = values[rows:]
    columns["margin"] = columns["lc_chosen"] - columns["lc_rejected"]
    return columns
