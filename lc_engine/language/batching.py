"""Cutting a chunk of rows in batches: rows of one length together, and what they share once.

Rows of an instruction set often begin alike, with a system text or the preamble of their template.
A causal model computes the same there for all of them, so what they share goes through it once, and
the keys and values that it leaves are used by every row.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.language.tokens import Tokens

# Rows are of one group if this many first tokens are the same.
_KEY_TOKENS: Final = 16
# A prefix that fewer rows share is not worth a forward of its own.
_LEAST_ROWS: Final = 4


class Packed(NamedTuple):
    """Rows that go through the model together, without the prefix that their group shares.

    Attributes:
        ids: (B, T) int64, padded at the end; a causal model's tokens never see what follows. A
            row's last token is a target only.
        positions: (R,) int64 places in the B·T tokens from which a response token is predicted.
        targets: (R,) int64 those response tokens.
        rows: (R,) int64 the row of the chunk that each belongs to.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    rows: Tensor


class Group(NamedTuple):
    """Rows that share a prefix (P,) of token ids; P may be 0."""

    prefix: Tensor
    batches: list[Packed]


@dataclass(frozen=True)
class Usage:
    """Tokens that scoring went through, over all sub-models.

    Attributes:
        asked: tokens of the rows but the last of each, under every sub-model.
        computed: tokens that went through the model, padding included.
        padding: of these, padding.
    """

    asked: int = 0
    computed: int = 0
    padding: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Add what another pass took."""
        return Usage(
            self.asked + other.asked,
            self.computed + other.computed,
            self.padding + other.padding,
        )

    @property
    def waste(self) -> float:
        """The share of the computed tokens that is padding."""
        return self.padding / self.computed if self.computed else 0.0


def pack(
    rows: Sequence[Tokens], budget: int, call: int, share_prefix: bool, device: torch.device
) -> list[Group]:
    """Cut rows in groups and batches.

    Args:
        rows: a chunk; row i is number i in `Packed.rows`.
        budget: most tokens of a batch, padding included; a longer row is a batch of its own.
        call: tokens whose computation takes as long as what a forward takes besides.
        share_prefix: whether the model can begin after a prefix that is already computed.
        device: where the tensors go.
    """
    groups = []
    for prefix, members in _groups(rows, share_prefix):
        skipped = len(prefix)
        # The longest first, so that a batch that does not fit the memory fails at once.
        order = sorted(members, key=lambda i: (-len(rows[i].ids), i))
        widths = np.array([len(rows[i].ids) - 1 - skipped for i in order], dtype=np.int64)
        batches = [
            _packed(rows, order[cut], skipped, device) for cut in _cuts(widths, budget, call)
        ]
        groups.append(Group(torch.from_numpy(prefix).to(device), batches))
    return groups


def count(rows: Sequence[Tokens], groups: Sequence[Group]) -> Usage:
    """Count what one pass over these groups takes."""
    asked = sum(len(row.ids) - 1 for row in rows)
    prefixes = sum(len(group.prefix) for group in groups)
    padded = sum(batch.ids.numel() for group in groups for batch in group.batches)
    own = asked - sum(
        len(group.prefix) * len(batch.ids) for group in groups for batch in group.batches
    )
    return Usage(asked, padded + prefixes, padded - own)


def _groups(rows: Sequence[Tokens], share_prefix: bool) -> list[tuple[np.ndarray, list[int]]]:
    nothing = np.empty(0, dtype=np.int64)
    if not share_prefix:
        return [(nothing, list(range(len(rows))))]
    by_start: dict[bytes, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_start[row.ids[:_KEY_TOKENS].tobytes()].append(i)
    groups, alone = [], []
    for members in by_start.values():
        prefix = _common_prefix([rows[i] for i in members])
        if len(members) >= _LEAST_ROWS and len(prefix):
            groups.append((prefix, members))
        else:
            alone += members
    return [*groups, (nothing, alone)] if alone else groups


def _common_prefix(rows: Sequence[Tokens]) -> np.ndarray:
    """Give the tokens that all rows begin with, up to where a response is first predicted from."""
    # The position before the first response token must stay outside: its output is needed.
    room = min(int(row.response.argmax()) - 1 for row in rows)
    first = rows[0].ids
    for row in rows[1:]:
        differs = np.flatnonzero(row.ids[:room] != first[:room])
        room = int(differs[0]) if len(differs) else room
    return first[: max(0, room)]


def _cuts(widths: np.ndarray, budget: int, call: int) -> list[slice]:
    """Cut rows (N,) of falling width so that padded tokens and calls cost the least together."""
    best = np.zeros(len(widths) + 1, dtype=np.int64)
    begins = np.zeros(len(widths) + 1, dtype=np.int64)
    for stop in range(1, len(widths) + 1):
        # The rows before are no narrower, so no more of them than this fit the budget.
        first = max(0, stop - max(1, budget // int(widths[stop - 1])))
        begin = np.arange(first, stop)
        padded = (stop - begin) * widths[first:stop]
        padded[:-1][padded[:-1] > budget] = np.iinfo(np.int64).max // 2
        cost = best[first:stop] + padded + call
        begins[stop] = begin[cost.argmin()]
        best[stop] = cost.min()
    cuts = []
    stop = len(widths)
    while stop:
        cuts.append(slice(int(begins[stop]), stop))
        stop = int(begins[stop])
    return cuts[::-1]


def _packed(
    rows: Sequence[Tokens], members: list[int], skipped: int, device: torch.device
) -> Packed:
    width = max(len(rows[i].ids) for i in members) - 1 - skipped
    ids = np.zeros((len(members), width + 1), dtype=np.int64)
    response = np.zeros((len(members), width + 1), dtype=bool)
    for place, i in enumerate(members):
        own = rows[i].ids[skipped:]
        ids[place, : len(own)] = own
        response[place, : len(own)] = rows[i].response[skipped:]
    row, column = np.nonzero(response)
    parts = (
        np.ascontiguousarray(ids[:, :width]),
        row * width + column - 1,
        ids[row, column],
        np.array(members, dtype=np.int64)[row],
    )
    return Packed(*(torch.from_numpy(part).to(device) for part in parts))
