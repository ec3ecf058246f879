"""Messages of the library, which name arguments of Python, with the options that these are here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Arguments of two words: no other word of a message looks like them.
ARGUMENTS: Final = (
    "always_keep",
    "batch_size",
    "chat_template",
    "feature_column",
    "image_size",
    "keep_bytes",
    "keep_tokens",
    "label_column",
    "label_kind",
    "mask_seed",
    "max_tokens",
    "never_keep",
    "noise_guard",
    "num_workers",
    "shard_rows",
    "template_kwargs",
)
# Words of English too: arguments only where a message begins with them, or as name=value.
WORDS: Final = (
    "balance",
    "by",
    "cap",
    "checkpoint",
    "data",
    "device",
    "dtype",
    "features",
    "floor",
    "gamma",
    "head",
    "ids",
    "ifd",
    "keep",
    "labels",
    "masking",
    "objective",
    "out",
    "score",
    "seed",
    "strategy",
    "temperature",
    "tol",
    "unscored",
    "weights",
)
# Those with another name here.
RENAMED: Final = {"return_path": "save_path", "pooling": "text_pooling"}

# Neither within a path, a quotation or another name nor after another option's dashes.
_BEFORE: Final = r"(?<![\w/\\.'\"`=-])"
_AFTER: Final = r"(?![\w/\\(]|\.\w)"
_VALUED: Final = "|".join((*ARGUMENTS, *WORDS, *RENAMED))


def _option(name: str) -> str:
    return "--" + RENAMED.get(name, name).replace("_", "-")


_RULES: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    # features=True (--features), and the other way round
    (re.compile(r"\w+=True \((--[a-z-]+)\)"), lambda found: found[1]),
    (re.compile(r"(--[a-z-]+) \(\w+=True\)"), lambda found: found[1]),
    # checkpoint=, head="linear", return_path=True
    (
        re.compile(rf'{_BEFORE}({_VALUED})=(?:True\b|"([\w-]+)"|(?=[\s,;:)]|$))'),
        lambda found: _option(found[1]) + (f" {found[2]}" if found[2] else ""),
    ),
    (
        re.compile(rf"{_BEFORE}({'|'.join(ARGUMENTS)}){_AFTER}"),
        lambda found: _option(found[1]),
    ),
    # gamma must lie in …, keep = 9 is a count, masking: …
    (
        re.compile(rf"^(--[a-z-]+|{'|'.join(WORDS)})(?:(?= must | names | asks |: )| = (?=\d))"),
        lambda found: (
            (found[1] if found[1].startswith("--") else _option(found[1]))
            + (" " if found[0].endswith("= ") else "")
        ),
    ),
    (
        re.compile(rf"{_BEFORE}keep(?=(?:, | and )--keep| asks for \d)|(?<=: give )keep$"),
        lambda found: "--keep",
    ),
)


def as_options(text: str) -> str:
    """Return a message with the names of options in place of those of arguments.

    One of a file of --config stays: its keys are the names of arguments.
    """
    if text.startswith("--config "):
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
