"""Cut a window of rows into batches: rows of similar length together, shared prefixes once.

Rows of an instruction set often begin alike, with a system prompt or the preamble of their
template. A causal model computes the same for all of them there, so a shared prefix goes through it
once, and every row uses its keys and values.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lc_engine._util.length_cuts import length_cuts
from lc_engine._util.transfer import upload
from lc_engine.language.packed_attention import Spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lc_engine.language.tokens import Tokens

# Rows whose first tokens are the same are candidates for a group.
_KEY_TOKENS: Final = 16
# A prefix that fewer rows share is not worth a forward of its own.
_MIN_ROWS: Final = 4


class PackedBatch(NamedTuple):
    """Rows that go through the model together, without the prefix that their group shares.

    Attributes:
        ids: (B, T) int64, padded at the end, where no row of a causal model looks. The last token
            of a row is only a target and is left out.
        positions: (R,) int64 indices into the B·T tokens from which a response token is predicted.
        targets: (R,) int64 those response tokens.
        rows: (R,) int64 the row of the window that each belongs to.
        inputs: what the decoder is given in place of the ids, for a row with images; else None.
        spans: of rows that lie one after the other, (1, T), in place of padded ones; else None.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    rows: Tensor
    inputs: dict[str, Any] | None = None
    spans: Spans | None = None

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return len(self.ids) if self.spans is None else len(self.spans.lengths)


class Group(NamedTuple):
    """Rows that share a prefix (P,) of token ids; P may be 0."""

    prefix: Tensor
    batches: list[PackedBatch]


@dataclass(frozen=True)
class Usage:
    """Number of tokens processed, over all sub-models.

    Attributes:
        asked: tokens of the rows without the last of each, once per sub-model.
        computed: tokens that went through the model, padding included.
        padding: those of them that are padding.
    """

    asked: int = 0
    computed: int = 0
    padding: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Add the usage of another pass."""
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
    rows: Sequence[Tokens],
    budget: int,
    overhead: int,
    share_prefix: bool,
    device: torch.device,
    decoder_inputs: Callable[[Tokens], dict[str, Any]] | None = None,
    *,
    pads: bool = True,
) -> list[Group]:
    """Cut rows into groups and batches.

    Args:
        rows: a window of rows; `PackedBatch.rows` are indices into it.
        budget: most tokens of a batch, padding included; a longer row is a batch of its own.
        overhead: fixed cost of a forward, in tokens.
        share_prefix: whether the model can continue from a cached prefix.
        device: where the tensors go.
        decoder_inputs: what the decoder is given for a row with images, each a batch of its own.
        pads: whether the rows of a batch are padded, and do not lie one after the other.
    """
    groups = []
    # Without padding nothing else speaks for cutting rows apart: a prefix is shared if that saves
    # more than the two further forwards that it takes, its own and one of a batch that is not full.
    least = 0 if pads else 2 * overhead
    for prefix, members in _groups(rows, share_prefix, least):
        skipped = len(prefix)
        # The longest first: a batch that does not fit in memory fails at once.
        order = sorted(members, key=lambda i: (-len(rows[i].ids), i))
        widths = np.array([len(rows[i].ids) - 1 - skipped for i in order], dtype=np.int64)
        if pads:
            cuts = length_cuts(widths, budget, overhead)
            batches = [_packed(rows, order[cut], skipped, device) for cut in cuts]
        else:
            batches = [
                _in_a_row(rows, order[cut], skipped, device) for cut in _token_cuts(widths, budget)
            ]
        groups.append(Group(torch.from_numpy(prefix).to(device), batches))
    nothing = torch.empty(0, dtype=torch.int64, device=device)
    for i, row in enumerate(rows):
        if row.inputs is not None:
            assert decoder_inputs is not None
            batch = _packed(rows, [i], 0, device, whole=True)
            groups.append(Group(nothing, [batch._replace(inputs=decoder_inputs(row))]))
    return groups


def usage_of(rows: Sequence[Tokens], groups: Sequence[Group]) -> Usage:
    """Return the usage of one pass over these groups."""
    asked = sum(len(row.ids) - 1 for row in rows)
    prefixes = sum(len(group.prefix) for group in groups)
    padded = sum(batch.ids.numel() for group in groups for batch in group.batches)
    unpadded = asked - sum(
        len(group.prefix) * batch.row_count for group in groups for batch in group.batches
    )
    return Usage(asked, padded + prefixes, padded - unpadded)


def _groups(
    rows: Sequence[Tokens], share_prefix: bool, least: int
) -> list[tuple[np.ndarray, list[int]]]:
    """Return each shared prefix with the indices of its rows; rows without one come last.

    Args:
        rows: a window of rows.
        share_prefix: whether to share any.
        least: tokens that sharing one must save, and more.
    """
    empty = np.empty(0, dtype=np.int64)
    texts = [(i, row) for i, row in enumerate(rows) if row.inputs is None]
    if not share_prefix:
        return [(empty, [i for i, _ in texts])] if texts else []
    by_start: dict[bytes, list[int]] = defaultdict(list)
    for i, row in texts:
        by_start[row.ids[:_KEY_TOKENS].tobytes()].append(i)
    groups, single = [], []
    for members in by_start.values():
        prefix = _common_prefix([rows[i] for i in members])
        saved = (len(members) - 1) * len(prefix)
        if len(members) >= _MIN_ROWS and len(prefix) and saved > least:
            groups.append((prefix, members))
        else:
            single += members
    return [*groups, (empty, single)] if single else groups


def _common_prefix(rows: Sequence[Tokens]) -> np.ndarray:
    """Return the longest prefix of all rows that predicts no response token."""
    # The position before the first response token stays outside: its output is needed.
    length = min(int(row.response.argmax()) - 1 for row in rows)
    first = rows[0].ids
    for row in rows[1:]:
        differs = np.flatnonzero(row.ids[:length] != first[:length])
        length = int(differs[0]) if len(differs) else length
    return first[: max(0, length)]


def _token_cuts(widths: np.ndarray, budget: int) -> list[slice]:
    """Cut rows of these numbers of tokens so that each part has at most `budget`, or one row."""
    cuts, start, total = [], 0, 0
    for i, width in enumerate(widths.tolist()):
        if i > start and total + width > budget:
            cuts.append(slice(start, i))
            start, total = i, 0
        total += width
    return [*cuts, slice(start, len(widths))] if len(widths) else cuts


def _in_a_row(
    rows: Sequence[Tokens], members: list[int], skipped: int, device: torch.device
) -> PackedBatch:
    """Pack rows one after the other."""
    ids = [rows[i].ids[skipped:] for i in members]
    response = [rows[i].response[skipped:] for i in members]
    lengths = [len(own) - 1 for own in ids]
    starts = np.cumsum([0, *lengths])
    columns = [np.flatnonzero(own) for own in response]
    parts = (
        np.concatenate([own[:-1] for own in ids])[None],
        np.concatenate([start + at - 1 for start, at in zip(starts, columns, strict=False)]),
        np.concatenate([own[at] for own, at in zip(ids, columns, strict=True)]),
        np.repeat(np.array(members, dtype=np.int64), [len(at) for at in columns]),
    )
    packed, positions, targets, owners = (upload(torch.from_numpy(part), device) for part in parts)
    spans = Spans.of(lengths, skipped, device)
    return PackedBatch(packed, positions, targets, owners, spans=spans)


def _packed(
    rows: Sequence[Tokens],
    members: list[int],
    skipped: int,
    device: torch.device,
    *,
    whole: bool = False,
) -> PackedBatch:
    """Pack rows; `whole` keeps the last token, which may be one of an image."""
    width = max(len(rows[i].ids) for i in members) - (not whole) - skipped
    ids = np.zeros((len(members), width + 1), dtype=np.int64)
    response = np.zeros((len(members), width + 1), dtype=bool)
    for number, i in enumerate(members):
        own = rows[i].ids[skipped:]
        ids[number, : len(own)] = own
        response[number, : len(own)] = rows[i].response[skipped:]
    line, column = np.nonzero(response)
    parts = (
        np.ascontiguousarray(ids[:, :width]),
        line * width + column - 1,
        ids[line, column],
        np.array(members, dtype=np.int64)[line],
    )
    packed, positions, targets, owners = (upload(torch.from_numpy(part), device) for part in parts)
    return PackedBatch(packed, positions, targets, owners)
