"""The NLL of each token of a response under the whole model, for the rows that a person reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lc_engine.language.conversation import Conversation
    from lc_engine.language.scorer import CausalLMScorer
    from lc_engine.language.tokens import Tokens
    from lc_engine.reporting.previews import Preview
    from lc_engine.reporting.scored_data import ScoredData

_SHOWN = 300  # tokens of a response
# Lower ends of the shades, in nats; below the first there is none.
SHADES = (0.5, 1.0, 2.0, 4.0, 8.0)
Spoken = list[tuple[str, float]]


def shade_of(nll: float) -> int:
    """Return the shade of a token: 0 for none, 5 for the darkest."""
    return int(np.searchsorted(SHADES, nll, side="right"))


def shade(
    scorer: CausalLMScorer, data: ScoredData, rows: NDArray[np.int64], found: dict[int, Preview]
) -> None:
    """Give the responses of rows their tokens, each with its NLL.

    Args:
        scorer: that gave the scores.
        data: that were scored.
        rows: (M,) row numbers, ascending.
        found: previews by row number; those of `rows` are replaced.
    """
    read = [(row, said) for row, said in data.conversations(rows) if row in found]
    flat: list[Conversation] = [one for _, said in read for one in said]
    encoded = scorer.transform.encode(flat)
    tokens = [one.tokens for one in encoded if one.tokens is not None]
    nlls = iter(scorer.token_nll(tokens))
    decode = scorer.transform.tokenizer.decode
    spoken = iter(
        [
            [] if one.tokens is None else _responses(one.tokens, next(nlls), decode)
            for one in encoded
        ]
    )
    for row, said in read:
        found[row] = _shaded(found[row], [next(spoken) for _ in said])


def _responses(tokens: Tokens, nll: NDArray[np.float64], decode: Any) -> list[Spoken]:
    """Return the responses of a conversation as tokens; each is a run of targets."""
    targets = np.flatnonzero(tokens.response)
    cuts = np.flatnonzero(np.diff(targets) > 1) + 1
    return [
        _texts(tokens.ids[places], part, decode)
        for places, part in zip(np.split(targets, cuts), np.split(nll, cuts), strict=True)
    ]


def _texts(ids: NDArray[np.int64], nll: NDArray[np.float64], decode: Any) -> Spoken:
    """Return tokens with their texts; bytes of one character are one, with the sum of their NLL."""
    found: Spoken = []
    start, waiting, before = 0, 0.0, ""
    for stop in range(1, min(len(ids), _SHOWN) + 1):
        # Decoded with what precedes, as a word's first token has its space only there.
        text = decode(ids[start:stop].tolist())
        waiting += float(nll[stop - 1])
        if text.endswith("\ufffd") and stop < len(ids):
            continue
        found.append((text[len(before) :], round(waiting, 2)))
        start, before, waiting = stop - 1, decode(ids[stop - 1 : stop].tolist()), 0.0
        if before.endswith("\ufffd"):
            start, before = stop, ""
    if len(ids) > _SHOWN:
        found.append((f" … ({len(ids) - _SHOWN:,} more tokens)", 0.0))
    return found


def _shaded(preview: Preview, spoken: Sequence[list[Spoken]]) -> Preview:
    """Put tokens in the place of responses, from the last one: earlier turns may not count."""
    turns = list(preview.turns)
    waiting = [list(one) for one in spoken]
    for at in reversed(range(len(turns))):
        if not turns[at].is_response:
            continue
        own = waiting[-1 if turns[at].role == "rejected" else 0]
        if own:
            turns[at] = turns[at]._replace(tokens=own.pop())
    return preview._replace(turns=turns)
