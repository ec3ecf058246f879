"""Flags of a turn that say whether it is trained on."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from lc_engine.data.readers.records import RowError
from lc_engine.language.formats.fields import BAD_FIELD

if TYPE_CHECKING:
    from collections.abc import Mapping

_logger = logging.getLogger("lc_engine")

# 1 or true: the turn is trained on; 0 or false: it is context.
FLAGS: Final = ("weight", "train", "training", "trainable", "loss", "loss_weight", "loss_mask")
# Words of which a field's name tells that it is such a flag too. Tools disagree about what true
# means (mask), or it is of a part of the text (train_detail).
_OF_FLAGS: Final = frozenset(
    {
        *("mask", "masks", "masked", "masking", "loss", "losses", "weight", "weights"),
        *("train", "trained", "training", "trainable", "ignore", "ignored", "exclude", "excluded"),
    }
)
# What the reader of turns takes, or that says nothing about the text.
_KNOWN: Final = frozenset(
    {
        *("role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id"),
        *("name", "reasoning_content", "reasoning", "thinking"),
        *("id", "uuid", "message_id", "parent_id", "turn", "turn_id", "index", "timestamp"),
        *("date", "time", "created_at", "model", "source", "dataset", "url", "lang", "language"),
        *("metadata", "meta", "score", "rating", "token_count", "num_tokens", "finish_reason"),
        *("stop_reason", "usage", "audio", "refusal", "annotations"),
    }
)


def counts_of(turn: Mapping[str, Any], where: str) -> bool | None:
    """Return whether a turn's flags count it, None without a flag.

    Raises:
        RowError: "bad_field", a flag of another value than 0, 1, true and false; or flags that
            contradict each other; or one whose meaning is not settled.
    """
    for name, value in turn.items():
        if value is not None and name not in FLAGS and _is_flag(str(name)):
            raise RowError(
                BAD_FIELD,
                f"{where} has {name}: {value!r:.40}, of which it is not settled whether and how it "
                f"says what is trained on; name it one of {', '.join(FLAGS)}, or remove it",
            )
    found = {name: turn[name] for name in FLAGS if turn.get(name) is not None}
    for name, value in found.items():
        if isinstance(value, str) or value not in (0, 1):
            raise RowError(BAD_FIELD, f"{where} has {name}: {value!r:.40}; known are 0 and 1")
    values = {bool(value) for value in found.values()}
    if len(values) > 1:
        raise RowError(BAD_FIELD, f"{where} has flags that disagree: {', '.join(found)}")
    return values.pop() if values else None


def other_fields(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are the chat template's affair; unknown ones are logged, once each."""
    rest = {
        name: value
        for name, value in turn.items()
        if name not in _KNOWN and name not in FLAGS and value is not None
    }
    for name in rest:
        _note(str(name))
    return rest


@cache
def _is_flag(name: str) -> bool:
    """Return whether a word in a field's name, such as train_detail or isMasked, is a flag's."""
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return not _OF_FLAGS.isdisjoint(re.split(r"[^a-z]+", words))


@cache
def _note(name: str) -> None:
    _logger.warning(
        "turns have the field %r, which is passed to the chat template and not used otherwise", name
    )
