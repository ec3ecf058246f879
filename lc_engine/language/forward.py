"""From packed rows to the mean negative log-likelihood of their responses, under a sub-model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lc_engine.language.batching import Group, PackedBatch, Usage, pack, usage_of
from lc_engine.language.prefix_cache import PrefixCache
from lc_engine.language.tuning import FORWARD_COST, TOKEN_BUDGET
from lc_engine.models.state import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lc_engine.language.families import LanguageFamily
    from lc_engine.language.tokens import Tokens
    from lc_engine.language.vocabulary_head import TokenScores, VocabularyHead

    RowCount = Callable[[int], None]

Pooling = Literal["mean", "weighted_mean"]


class Means(NamedTuple):
    """Means over the response tokens of M rows, float64 on the host.

    Attributes:
        nll: (M,) in nats.
        entropy: (M,) in nats; None if it was not asked for.
        hidden: (M, D) float32, last hidden states of the positions that predict the response
            tokens, by the pooling of `Forward`; None if they were not asked for.
        token_nll: (R,) in nats, of the R response tokens one by one, row after row; None if it was
            not asked for.
    """

    nll: Tensor
    entropy: Tensor | None
    hidden: Tensor | None = None
    token_nll: Tensor | None = None


class PackedRows:
    """M rows, cut into groups and batches once for all sub-models."""

    def __init__(self, rows: Sequence[Tokens], groups: list[Group]) -> None:
        self.rows = rows
        self.groups = groups
        self.counts = torch.tensor([int(row.response.sum()) for row in rows], dtype=torch.float64)

    def token_index(self, rows: Tensor) -> Tensor:
        """Return where tokens stand among the R response tokens of all rows.

        Args:
            rows: (r,) int64, the row of each token; all tokens of a row, in order, side by side.
        """
        starts = (self.counts.cumsum(0) - self.counts).long().to(rows.device)
        return starts[rows] + self.place_in_row(rows)

    def place_in_row(self, rows: Tensor) -> Tensor:
        """Return where tokens stand among the response tokens of their row, from 0; likewise."""
        counts = torch.unique_consecutive(rows, return_counts=True)[1]
        first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        return torch.arange(len(rows), device=rows.device) - first


class Forward:
    """Runs rows through a model, as whichever sub-model its family has made of it.

    Args:
        model: a causal language model.
        head: its vocabulary head.
        family: its sub-models.
        token_budget: most tokens of a batch; None takes the default of the device.
        pooling: of the hidden states of a row: their "mean", or the "weighted_mean", in which the
            i-th of T weighs i / (1 + … + T).

    Attributes:
        usage: tokens that went through the model so far.
    """

    def __init__(
        self,
        model: nn.Module,
        head: VocabularyHead,
        family: LanguageFamily,
        token_budget: int | None,
        pooling: Pooling = "mean",
    ) -> None:
        self._model = model
        self._weighted = pooling == "weighted_mean"
        self._head = head
        self._family = family
        self._device: torch.device = head.module.weight.device
        kind = "cpu" if self._device.type == "cpu" else "gpu"
        self._overhead = FORWARD_COST[kind]
        self._budget = head.token_limit(token_budget or TOKEN_BUDGET[kind])
        self._prefix_cache = PrefixCache(head.decoder, self._device)
        self.usage = Usage()

    def pack(self, rows: Sequence[Tokens]) -> PackedRows:
        """Cut rows into groups and batches."""
        share = self._prefix_cache.supported
        groups = pack(rows, self._budget, self._overhead, share, self._device)
        return PackedRows(rows, groups)

    def whole(
        self,
        packed: PackedRows,
        *,
        passed: RowCount,
        entropy: bool = False,
        tokens: bool = False,
        hidden: bool = False,
    ) -> Means:
        """Score rows under the model itself."""
        with evaluating(self._model):
            return self.means(
                packed, [None], passed=passed, entropy=entropy, tokens=tokens, hidden=hidden
            )[0]

    def means(
        self,
        packed: PackedRows,
        points: Sequence[int | None],
        *,
        passed: RowCount,
        entropy: bool = False,
        tokens: bool = False,
        hidden: bool = False,
    ) -> list[Means]:
        """Score rows under sub-models that share the current body of the model.

        Args:
            packed: M rows.
            points: indices of the sub-models; None is the model with its whole head.
            passed: called with the number of rows after each batch.
            entropy: whether to return the entropy.
            tokens: whether to return the NLL of every token.
            hidden: whether to return the pooled last hidden states, which the points share.

        Returns:
            The means, one per point.
        """
        shape = (2, len(points), len(packed.rows))
        sums = torch.zeros(shape, dtype=torch.float64, device=self._device)
        states: Tensor | None = None
        total = int(packed.counts.sum()) if tokens else 0
        single = torch.zeros(len(points), total, dtype=torch.float64, device=self._device)
        for group in packed.groups:
            cache = None
            if len(group.prefix):
                self._family.begin_at(0)
                cache = self._prefix_cache.compute(group.prefix.clone().unsqueeze(0))
            self._family.begin_at(len(group.prefix))
            for batch in group.batches:
                found, wanted = self._tokens(batch, cache, points, entropy)
                if hidden:
                    if states is None:
                        states = wanted.new_zeros(
                            (len(packed.rows), wanted.shape[1]), dtype=torch.float32
                        )
                    weighed = wanted.float()
                    if self._weighted:
                        weighed = weighed * (packed.place_in_row(batch.rows) + 1).unsqueeze(1)
                    states.index_add_(0, batch.rows, weighed)
                for i, scored in enumerate(found):
                    sums[0, i].index_add_(0, batch.rows, scored.nll.double())
                    if scored.entropy is not None:
                        sums[1, i].index_add_(0, batch.rows, scored.entropy.double())
                    if tokens:
                        single[i, packed.token_index(batch.rows)] = scored.nll.double()
                passed(len(batch.ids))
        self.usage += usage_of(packed.rows, packed.groups)
        nlls, entropies = sums.cpu() / packed.counts
        if states is not None:
            counts = packed.counts
            shares = counts * (counts + 1) / 2 if self._weighted else counts
            states = states.cpu() / shares.unsqueeze(1).float()
        return [
            Means(nll, mean if entropy else None, states, own if tokens else None)
            for nll, mean, own in zip(nlls, entropies, single.cpu(), strict=True)
        ]

    def _tokens(
        self, batch: PackedBatch, cache: Any, points: Sequence[int | None], entropy: bool
    ) -> tuple[list[TokenScores], Tensor]:
        """Return the scores of each point, and the hidden states (R, D) that they are of."""
        # A copy: a forward may write to what it is given.
        inputs: dict[str, Any] = {"input_ids": batch.ids.clone(), "use_cache": False}
        if cache is not None:
            inputs |= self._prefix_cache.for_rows(cache, len(batch.ids))
        if not self._head.linear:
            # Such a head cannot be masked, so there is one point.
            scored, wanted = self._head.score_logits(
                inputs, batch.positions, batch.targets, entropy
            )
            return [scored], wanted
        hidden = self._head.decoder(**inputs)[0]
        wanted = hidden.flatten(0, 1)[batch.positions]
        mask = self._family.head_mask
        masks = [None if mask is None or k is None else mask.at(k) for k in points]
        return [self._head.score(wanted, batch.targets, one, entropy) for one in masks], wanted
