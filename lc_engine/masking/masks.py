"""The masks of K sub-models, as the operators take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from lc_engine.ops import contract, philox

if TYPE_CHECKING:
    from torch import Tensor

    from lc_engine.ops.saliency import Saliency


class Masks(NamedTuple):
    """The masks of K sub-models: sub-model k keeps the weights with s ≥ t_k that it does not drop.

    Attributes:
        thresholds: (K, T) float64 t_k of each tensor, on the host.
        saliency: s as the operators take it: None for |w|, ("random", seed), or T tensors beside
            the weights.
        kept: K numbers of weights that are kept and are not zero; of random masks over more than
            2**18 weights the expected ones; empty for dropout, which masks none.
        first_equal: for each of the K the first sub-model that is the same network: one with the
            same masks, but for weights that are zero anyway.
        dropped: K × T int64 indices of weights that tie with t_k and are dropped, beside the
            weights; empty where none is.
        breaks_ties: whether ties were broken, by lists or by a saliency of levels (`ops.levels`).
    """

    thresholds: Tensor
    saliency: list[Tensor] | tuple[Literal["random"], int] | None
    kept: tuple[int, ...]
    first_equal: tuple[int, ...]
    dropped: tuple[tuple[Tensor, ...], ...] = ()
    breaks_ties: bool = False

    def dropped_at(self, k: int) -> tuple[Tensor, ...] | None:
        """Return the T lists of sub-model k; None where there are none."""
        return self.dropped[k] if self.dropped else None

    def without_last(self) -> Masks:
        """Return the masks of all tensors but the last; the counts stay those of all."""
        saliency = self.saliency
        return self._replace(
            thresholds=self.thresholds[:, :-1].contiguous(),
            saliency=saliency[:-1] if isinstance(saliency, list) else saliency,
            dropped=tuple(row[:-1] for row in self.dropped),
        )

    def of(self, i: int, weight: Tensor) -> tuple[Tensor, Saliency]:
        """Return thresholds (K,) and saliency of one tensor, for an operator that takes no lists.

        Args:
            i: which of the T tensors.
            weight: it.
        """
        bounds = self.thresholds[:, i].contiguous()
        if isinstance(self.saliency, tuple):
            # An operator of one tensor draws from stream 0.
            if i == 0:
                return bounds, self.saliency
            seed = self.saliency[1]
            return bounds, philox.uniform(tuple(weight.shape), seed, i, weight.device)
        given = None if self.saliency is None else self.saliency[i]
        if not self.dropped:
            return bounds, given
        score = (weight.detach().abs() if given is None else given).to(
            contract.compute_dtype(weight.dtype)
        )
        edges = bounds.to(score.device, score.dtype)
        level = torch.bucketize(score, edges, right=True).to(torch.float32)
        flat = level.view(-1)
        for row in self.dropped:
            flat[row[i]] -= 1
        return torch.arange(1.0, len(bounds) + 1, dtype=torch.float64), level
