"""From packed rows to the mean negative log-likelihood of their responses, under a sub-model."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lc_engine.language.batching import Group, PackedBatch, Usage, pack, usage_of
from lc_engine.language.fast_layers import FastLayers
from lc_engine.language.images.model import LanguageSide, copied
from lc_engine.language.packed_attention import PackedAttention, is_packed_there
from lc_engine.language.prefix_cache import PrefixCache
from lc_engine.language.tuning import FORWARD_COST, HEAD_TOKENS, TOKEN_BUDGET
from lc_engine.models.state import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

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
        self._decoder_inputs = model.decoder_inputs if isinstance(model, LanguageSide) else None
        self._weighted = pooling == "weighted_mean"
        self._head = head
        self._family = family
        self._device: torch.device = head.module.weight.device
        kind = "cpu" if self._device.type == "cpu" else "gpu"
        self._overhead = FORWARD_COST[kind]
        self._head_tokens = HEAD_TOKENS[kind]
        self._budget = head.token_limit(token_budget or TOKEN_BUDGET[kind])
        self._prefix_cache = PrefixCache(head.decoder, self._device)
        self._fast_layers = FastLayers(model)
        self._packing: PackedAttention | None = None
        if is_packed_there(self._device, head.module.weight.dtype) and not family.reads_positions:
            packing = PackedAttention(head.decoder, self._prefix_cache)
            self._packing = packing if packing.supported else None
        self.usage = Usage()

    def pack(self, rows: Sequence[Tokens]) -> PackedRows:
        """Cut rows into groups and batches.

        Raises:
            ValueError: a response token that the vocabulary head does not have.
        """
        known = len(self._head.module.weight)
        largest = max((int(row.ids[row.response].max(initial=0)) for row in rows), default=0)
        if largest >= known:
            raise ValueError(
                f"a response has the token {largest}, but the vocabulary head has {known}: use the "
                "tokenizer that the model was trained with"
            )
        share = self._prefix_cache.supported
        groups = pack(
            rows,
            self._budget,
            self._overhead,
            share,
            self._device,
            self._decoder_inputs,
            pads=self._packing is None,
        )
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
        totals = _Totals(packed, len(points), self._device, tokens=tokens, weighted=self._weighted)
        waiting: list[tuple[Tensor, PackedBatch]] = []
        for group in packed.groups:
            cache = None
            if len(group.prefix):
                self._family.begin_at(0)
                with self._fast_layers.in_use():
                    cache = self._prefix_cache.compute(group.prefix.clone().unsqueeze(0))
            self._family.begin_at(len(group.prefix))
            for batch in group.batches:
                # A copy: a forward may write to what it is given.
                inputs: dict[str, Any] = {"input_ids": batch.ids.clone(), "use_cache": False}
                if batch.inputs is not None:
                    inputs = copied(batch.inputs)
                if batch.spans is not None:
                    inputs["position_ids"] = batch.spans.positions.clone()
                if cache is not None:
                    inputs |= self._prefix_cache.for_rows(cache, len(batch.ids))
                with self._fast_layers.in_use(), self._over(batch):
                    if self._head.linear:
                        states = self._head.decoder(**inputs)[0]
                        wanted = states.flatten(0, 1)[batch.positions]
                        waiting.append((wanted, batch))
                    else:
                        # Such a head cannot be masked, so there is one point.
                        scored, wanted = self._head.score_logits(
                            inputs, batch.positions, batch.targets, entropy
                        )
                        totals.add(batch.rows, [scored])
                if hidden:
                    totals.add_states(batch.rows, wanted)
                if sum(len(some) for some, _ in waiting) >= self._head_tokens:
                    self._score(waiting, points, entropy, totals)
                passed(batch.row_count)
        self._score(waiting, points, entropy, totals)
        self.usage += usage_of(packed.rows, packed.groups)
        return totals.means(entropy)

    def _over(self, batch: PackedBatch) -> AbstractContextManager[None]:
        """Return the context in which a batch runs."""
        if batch.spans is None:
            return nullcontext()
        assert self._packing is not None
        return self._packing.over(batch.spans)

    def _score(
        self,
        waiting: list[tuple[Tensor, PackedBatch]],
        points: Sequence[int | None],
        entropy: bool,
        totals: _Totals,
    ) -> None:
        """Score the hidden states that wait, all together, and forget them."""
        if not waiting:
            return
        wanted = torch.cat([some for some, _ in waiting])
        targets = torch.cat([batch.targets for _, batch in waiting])
        mask = self._family.head_mask
        masks = [None if mask is None or k is None else mask.at(k) for k in points]
        totals.add(
            torch.cat([batch.rows for _, batch in waiting]),
            [self._head.score(wanted, targets, one, entropy) for one in masks],
        )
        waiting.clear()


class _Totals:
    """Sums over the response tokens of each of M rows, under P sub-models.

    Args:
        packed: the M rows.
        points: P.
        device: where the sums are.
        tokens: whether to keep the NLL of every token.
        weighted: whether the i-th hidden state of a row counts i times.
    """

    def __init__(
        self,
        packed: PackedRows,
        points: int,
        device: torch.device,
        *,
        tokens: bool,
        weighted: bool,
    ) -> None:
        self._packed, self._weighted = packed, weighted
        self._sums = torch.zeros((2, points, len(packed.rows)), dtype=torch.float64, device=device)
        self._states: Tensor | None = None
        self._single: Tensor | None = None
        if tokens:
            total = int(packed.counts.sum())
            self._single = torch.zeros((points, total), dtype=torch.float64, device=device)

    def add(self, rows: Tensor, found: Sequence[TokenScores]) -> None:
        """Add the scores of tokens (R,) under each sub-model.

        Args:
            rows: (R,) the row of each token; all tokens of a row, in order, side by side.
            found: one per sub-model.
        """
        for i, scored in enumerate(found):
            self._sums[0, i].index_add_(0, rows, scored.nll.double())
            if scored.entropy is not None:
                self._sums[1, i].index_add_(0, rows, scored.entropy.double())
            if self._single is not None:
                self._single[i, self._packed.token_index(rows)] = scored.nll.double()

    def add_states(self, rows: Tensor, states: Tensor) -> None:
        """Add hidden states (R, D), which the sub-models share."""
        if self._states is None:
            shape = (len(self._packed.rows), states.shape[1])
            self._states = states.new_zeros(shape, dtype=torch.float32)
        states = states.float()
        if self._weighted:
            states = states * (self._packed.place_in_row(rows) + 1).unsqueeze(1)
        self._states.index_add_(0, rows, states)

    def means(self, entropy: bool) -> list[Means]:
        """Return the means, one per sub-model."""
        nlls, entropies = self._sums.cpu() / self._packed.counts
        states, counts = self._states, self._packed.counts
        if states is not None:
            shares = counts * (counts + 1) / 2 if self._weighted else counts
            states = states.cpu() / shares.unsqueeze(1).float()
        single = [None] * len(nlls) if self._single is None else self._single.cpu()
        return [
            Means(nll, mean if entropy else None, states, own)
            for nll, mean, own in zip(nlls, entropies, single, strict=True)
        ]
