"""The format of a row, by the names of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, cast, get_args

Format = Literal["alpaca", "sharegpt", "messages", "prompt_completion", "preference"]

# The fields that each format requires, one of each tuple; the first format that fits is taken.
_REQUIRED: Final[tuple[tuple[Format, tuple[tuple[str, ...], ...]], ...]] = (
    ("preference", (("chosen",), ("rejected",))),
    ("messages", (("messages",),)),
    ("sharegpt", (("conversations", "conversation"),)),
    ("alpaca", (("instruction",), ("output", "response"))),
    ("alpaca", (("query",), ("response",))),  # data-juicer's
    ("prompt_completion", (("prompt",), ("completion", "response"))),
)


def detect(row: Any) -> Format:
    """Return the format of a row, detected from the names of its fields.

    Raises:
        ValueError: the fields are of no known format; the text lists them and the formats.
    """
    names = list(row) if isinstance(row, Mapping) else []
    for form, required in _REQUIRED:
        if all(any(name in names for name in either) for either in required):
            return form
    raise ValueError(
        f"the rows have the fields {', '.join(map(str, names)) or 'none'}, which match no known "
        "format: instruction and output (alpaca), conversations with from and value "
        "(sharegpt), messages with role and content (messages), prompt and completion or "
        "response (prompt_completion), or chosen and rejected (preference)"
    )


def check_format(name: str | None) -> Format | None:
    """Return the name of a format, or None for None.

    Raises:
        ValueError: not a format; the text lists them.
    """
    if name is not None and name not in get_args(Format):
        raise ValueError(f"form must be one of {', '.join(get_args(Format))}, got {name!r}")
    return cast("Format | None", name)
