"""What lc_engine makes of a row, judged by the accounts of its rendering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from benchmarks.templates.account import Account, accounts
from benchmarks.templates.rendering import RejectedError, Renderer

if TYPE_CHECKING:
    from lc_engine.language.encoder import Encoder
    from lc_engine.language.tokens import Tokens

Outcome = Literal["right", "wrong", "unscored", "rejected", "unwritten"]


class Verdict(NamedTuple):
    """What became of one row under one template.

    Attributes:
        outcome: "right"; "wrong": it is scored on other tokens than the account's; "unscored": it
            has an answer and no score; "rejected": the template raises an error for it;
            "unwritten": the template writes nothing of the answers, and there is no score.
        by: what the account is by, "marks" or "offsets"; "" if the template rejects the row.
        detail: what is wrong with a score; else what lc_engine says.
    """

    outcome: Outcome
    by: str
    detail: str


def judge(encoder: Encoder, render: Renderer, row: dict[str, Any]) -> Verdict:
    """Encode a row and compare the tokens that count with the account's."""
    batch = next(encoder.open_source([row], "messages").batches(1))
    is_scored = batch.status[0] == "ok"
    told = batch.detail[0] if is_scored else f"{batch.status[0]}: {batch.detail[0]}"
    try:
        right = accounts(render, row)
    except RejectedError as error:
        reason = f"scored, though the template rejects the row: {error}"
        return Verdict("wrong", "", reason) if is_scored else Verdict("rejected", "", told)
    by = right[0].by
    if not is_scored:
        is_written = any(one.must.any() for one in right)
        return Verdict("unscored" if is_written else "unwritten", by, told)
    faults = [_fault(encoder.tokenizer, batch.inputs[0], one) for one in right]
    return Verdict("wrong", by, "; or ".join(faults)) if all(faults) else Verdict("right", by, told)


def _fault(tokenizer: Any, tokens: Tokens, right: Account) -> str:
    """Return what is wrong with the tokens that count; "" if nothing is."""
    encoded = tokenizer(right.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = np.array(encoded["input_ids"]), np.array(encoded["offset_mapping"])
    scored = len(tokens.ids)
    if scored > len(ids) or (tokens.ids != ids[:scored]).any():
        return "other ids than those of the whole rendering"
    must, may = (_overlapping(offsets, which) for which in (right.must, right.may))
    # A control token that takes white space of the answer with it is still the template's.
    is_added = np.isin(ids, list(tokenizer.added_tokens_decoder))
    must &= ~(is_added & _overlapping(offsets, ~right.must))
    counted = np.zeros(len(ids), dtype=bool)
    counted[:scored] = tokens.response
    for name, wrong in (("left out", must & ~counted), ("counted", counted & ~may)):
        if wrong.any():
            shown = [right.text[slice(*offsets[t])] for t in np.flatnonzero(wrong)[:6]]
            return f"{wrong.sum()} tokens {name}: {' '.join(map(repr, shown))}"
    return ""


def _overlapping(offsets: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return which tokens (T,) hold one of the characters; the first never counts."""
    before = np.concatenate([[0], np.cumsum(which)])
    held = before[offsets[:, 1]] > before[offsets[:, 0]]
    held[:1] = False
    return held
