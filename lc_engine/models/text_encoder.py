"""From texts to the inputs of a model of `transformers`: one text, a pair, or words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lc_engine.data.fields import ATTENTION_MASK, Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    # A text, a pair of texts, or the words of a text.
    Text = str | tuple[str, str] | list[str]


@dataclass(frozen=True)
class EncodedText:
    """Tokens of a row.

    Attributes:
        tokens: by the names of the model's inputs, T each.
        words: (T,) the word that each token is of, None for special tokens; of rows of words only.
        is_cut: whether the row was longer than the window.
    """

    tokens: dict[str, list[int]]
    words: list[int | None] | None
    is_cut: bool


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer, and what else a source of texts needs to know of the model.

    Attributes:
        tokenizer: of `transformers`, a fast one.
        window: most tokens of a row; longer ones are cut at their end.
        classes: names of the model's own classes, in their order; None where it has no names.
        classifies: whether the model has classes of its own.
    """

    tokenizer: Any = field(repr=False)
    window: int
    classes: tuple[str, ...] | None = None
    classifies: bool = False

    def encode(self, texts: Sequence[Text]) -> list[EncodedText]:
        """Tokenize texts, all of one kind."""
        if not texts:
            return []
        words = isinstance(texts[0], list)
        given: tuple[Any, ...] = (list(texts),)
        if isinstance(texts[0], tuple):
            given = tuple(map(list, zip(*texts, strict=True)))
        found = self.tokenizer(
            *given,
            truncation=True,
            max_length=self.window,
            is_split_into_words=words,
            return_attention_mask=True,
            return_overflowing_tokens=False,
        )
        rows = []
        for i in range(len(texts)):
            tokens = {name: found[name][i] for name in found}
            rows.append(
                EncodedText(
                    tokens,
                    found.word_ids(i) if words else None,
                    bool(found.encodings and found.encodings[i].overflowing),
                )
            )
        return rows

    def padded(self, rows: Sequence[EncodedText]) -> Fields:
        """Return rows, one at least, as the inputs of the model, padded at their ends."""
        tokenizer = self.tokenizer
        pads = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
            ATTENTION_MASK: 0,
        }
        return Fields.pad([row.tokens for row in rows], pads)
