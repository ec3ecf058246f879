"""From packed rows to the mean log-likelihood of their responses, under the model as it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from lc_engine.language.batching import Group, Packed, Usage, count, pack
from lc_engine.language.prefix_cache import PrefixKeys
from lc_engine.models.state import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lc_engine.language.families import LanguageFamily
    from lc_engine.language.tokens import Tokens
    from lc_engine.language.vocabulary_head import Scored, VocabularyHead

    RowCount = Callable[[int], None]

# Most tokens of a batch, and the tokens that a forward costs besides those that go through it. A
# CPU is as fast with this many as with more, and its caches hold them. SmolLM2 in bfloat16 on two
# cores: 25 ms a call and 2,700 tokens/s.
_CPU_TOKENS: Final = (1024, 64)
_GPU_TOKENS: Final = (16384, 2048)


class Means(NamedTuple):
    """Means over the response tokens of M rows, float64 on the host.

    Attributes:
        nll: (M,) in nats.
        entropy: (M,) in nats; None where it was not asked for.
    """

    nll: Tensor
    entropy: Tensor | None


class RowSet:
    """M rows, cut in groups and batches for as many forwards as are wanted."""

    def __init__(self, rows: Sequence[Tokens], groups: list[Group]) -> None:
        self.rows = rows
        self.groups = groups
        self.counts = torch.tensor([int(row.response.sum()) for row in rows], dtype=torch.float64)


class Forward:
    """Runs rows through a model, whichever sub-model its family has made of it.

    Args:
        model: a causal language model.
        head: its vocabulary head.
        family: its sub-models.
        token_budget: most tokens that go through it at a time; None takes what suits the device.

    Attributes:
        usage: tokens that went through the model so far.
    """

    def __init__(
        self,
        model: nn.Module,
        head: VocabularyHead,
        family: LanguageFamily,
        token_budget: int | None,
    ) -> None:
        self._model = model
        self._head = head
        self._family = family
        self._device: torch.device = head.module.weight.device
        budget, self._call = _CPU_TOKENS if self._device.type == "cpu" else _GPU_TOKENS
        self._budget = head.budget(token_budget or budget)
        self._keys = PrefixKeys(head.decoder, self._device)
        self.usage = Usage()

    def pack(self, rows: Sequence[Tokens]) -> RowSet:
        """Cut rows in groups and batches."""
        groups = pack(rows, self._budget, self._call, self._keys.can_share, self._device)
        return RowSet(rows, groups)

    def whole(self, packed: RowSet, *, entropy: bool, passed: RowCount) -> Means:
        """Score rows under the model itself."""
        with evaluating(self._model):
            return self.means(packed, [None], entropy=entropy, passed=passed)[0]

    def means(
        self, packed: RowSet, points: Sequence[int | None], *, entropy: bool, passed: RowCount
    ) -> list[Means]:
        """Score rows under sub-models that share the body which the model has now.

        Args:
            packed: M rows.
            points: numbers of the sub-models; None is the model with its whole head.
            entropy: whether to give the entropy.
            passed: called with the number of rows after each batch.

        Returns:
            One per point.
        """
        shape = (2, len(points), len(packed.rows))
        sums = torch.zeros(shape, dtype=torch.float64, device=self._device)
        for group in packed.groups:
            shared = None
            if len(group.prefix):
                self._family.begin_at(0)
                shared = self._keys.of(group.prefix.unsqueeze(0))
            self._family.begin_at(len(group.prefix))
            for batch in group.batches:
                for i, scored in enumerate(self._tokens(batch, shared, points, entropy)):
                    sums[0, i].index_add_(0, batch.rows, scored.nll.double())
                    if scored.entropy is not None:
                        sums[1, i].index_add_(0, batch.rows, scored.entropy.double())
                passed(len(batch.ids))
        self.usage += count(packed.rows, packed.groups)
        nlls, entropies = sums.cpu() / packed.counts
        return [
            Means(nll, own if entropy else None) for nll, own in zip(nlls, entropies, strict=True)
        ]

    def _tokens(
        self, batch: Packed, shared: Any, points: Sequence[int | None], entropy: bool
    ) -> list[Scored]:
        inputs: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False}
        if shared is not None:
            inputs |= self._keys.for_rows(shared, len(batch.ids))
        if not self._head.linear:
            # No sub-model masks such a head, so there is one point.
            return [self._head.score_own(inputs, batch.positions, batch.targets, entropy)]
        hidden = self._head.decoder(**inputs)[0]
        wanted = hidden.flatten(0, 1)[batch.positions]
        mask = self._family.head_mask
        masks = [None if mask is None or k is None else mask.at(k) for k in points]
        return [self._head.score(wanted, batch.targets, one, entropy) for one in masks]
