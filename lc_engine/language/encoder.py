"""From conversations to token ids and a mask of the response tokens.

A row is rendered by the chat template and tokenized as a whole: its ids are those that a trainer
gives the model. The response is what the assistant says, wherever the template writes it, without
the header and the end of a turn. A token counts if any of its characters is of a response; one that
was added to the vocabulary, such as the end of a turn, only if all of them are.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

import numpy as np

from lc_engine.data.batch import OK, UNREADABLE
from lc_engine.language.formats import check_format, conversations
from lc_engine.language.rendering.chat_template import ChatTemplate
from lc_engine.language.rendering.forms import in_parts
from lc_engine.language.rendering.pieces import (
    pieces_of,
    unclear_reasoning,
    without_reasoning,
)
from lc_engine.language.rendering.responses import RenderingError, locate
from lc_engine.language.source import InstructionSource, open_records
from lc_engine.language.tokens import Encoded, Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lc_engine.language.conversation import Conversation
    from lc_engine.language.formats import Format

Turns = Literal["all", "last"]
Reasoning = Literal["score", "context", "drop"]

EMPTY_RESPONSE: Final = "empty_response"
TOO_LONG: Final = "too_long"


class Encoder:
    """Encodes conversations; the transform that `open_source` takes for instruction sets.

    Args:
        tokenizer: a fast tokenizer of `transformers` (one with character offsets).
        window: most tokens of a row. A longer row is truncated at its end, so the start of its
            response stays; one whose response begins after the window is "too_long".
        chat_template: Jinja text in place of the tokenizer's own. Without either, the headings
            of Alpaca's prompt precede the turns.
        template_kwargs: further variables of the template; a row's own come before them.
        template_time: the moment that the template takes for now, as a date or a time in ISO 8601;
            None takes the present one, which then stands still.
        turns: "all" assistant turns count, or only the "last".
        reasoning: whether the reasoning in an answer is to "score" where the template writes it, is
            only "context", or is to "drop" before the template sees it.
        vocabulary: tokens that the model has an embedding of; a row with another is "unreadable".
            None takes every token.

    Raises:
        ValueError: a tokenizer without offsets, or an invalid argument.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        window: int,
        chat_template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        template_time: str | None = None,
        turns: Turns = "all",
        reasoning: Reasoning = "score",
        vocabulary: int | None = None,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"tokenizer: {type(tokenizer).__name__} has no character offsets: use the model's "
                "fast tokenizer (tokenizer.json)"
            )
        if window < 2:
            raise ValueError(f"window must be at least 2 tokens, got {window}")
        if turns not in get_args(Turns):
            raise ValueError(f"turns must be one of {get_args(Turns)}, got {turns!r}")
        if reasoning not in get_args(Reasoning):
            raise ValueError(f"reasoning must be one of {get_args(Reasoning)}, got {reasoning!r}")
        self.tokenizer = tokenizer
        self.window = window
        self.turns = turns
        self.reasoning = reasoning
        self.vocabulary = vocabulary
        self.template = ChatTemplate(tokenizer, chat_template, template_kwargs, template_time)
        # None where the template asks for no date.
        self.template_time = self.template.clock.at if self.template.is_dated else None
        self._is_added = np.zeros(1 + max(tokenizer.get_vocab().values()), dtype=bool)
        self._is_added[list(tokenizer.added_tokens_decoder)] = True

    def open_source(self, data: Any, form: str | None = None) -> InstructionSource:
        """Open an instruction set.

        Args:
            data: see `open_records`.
            form: "alpaca", "sharegpt", "messages", "prompt_completion" or "preference"; None
                detects it from the fields.

        Raises:
            FileNotFoundError: the path does not exist.
            ValueError: data of an unknown kind or format.
        """
        check_format(form)
        return InstructionSource(open_records(data), self, form)

    def read(self, row: Any, form: Format, folder: Path) -> tuple[Conversation, ...]:
        """Return what a row says; see `formats.conversations`. No file of the folder is read."""
        return conversations(row, form)

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded]:
        """Encode conversations; the status of each says what is wrong with it."""
        rendered = [self._rendered(conversation) for conversation in conversations]
        texts = [one for one in rendered if isinstance(one, _Text)]
        tokens = iter(self._tokenized(texts))
        return [
            self._fitted(next(tokens), one.notes) if isinstance(one, _Text) else one
            for one in rendered
        ]

    def describe(self) -> dict[str, Any]:
        """Return what the token ids depend on besides the data, as JSON."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda pair: pair[1])
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = backend.to_str() if backend is not None else ""
        return {
            "tokenizer_digest": hashlib.sha256(f"{vocabulary}{rules}".encode()).hexdigest(),
            **self.template.describe(),
            "window": self.window,
            "turns": self.turns,
            "reasoning": self.reasoning,
        }

    def _rendered(self, conversation: Conversation) -> _Text | Encoded:
        """Render a conversation, and locate its responses in the text."""
        messages = [
            without_reasoning(message)
            if self.reasoning == "drop" and message["role"] == "assistant"
            else message
            for message in conversation.messages
        ]
        only_rest = self.reasoning == "context"
        said = {
            piece.turn
            for piece in pieces_of(messages)
            if not only_rest or piece.text[piece.reasoning :].strip()
        }
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        asked = answers[-1:] if self.turns == "last" else answers
        asked = [turn for turn in asked if turn in said]
        if not asked:
            beside = " beside its reasoning" if only_rest else ""
            return Encoded(None, EMPTY_RESPONSE, f"no assistant turn has any text{beside}")
        flags = conversation.counts
        counted = [turn for turn in asked if flags is None or flags[turn]]
        if not counted:
            return Encoded(None, EMPTY_RESPONSE, "a flag of each assistant turn makes it context")
        if self.reasoning != "score":
            read = counted if only_rest else answers
            unclear = unclear_reasoning(conversation.messages, read)
            if unclear:
                return Encoded(None, UNREADABLE, unclear)
        if conversation.raw and not self.template.is_asked_for:
            return self._joined(messages)
        if conversation.images:  # a template of images takes all contents as lists of parts
            messages = [in_parts(message) for message in messages]
        try:
            located = locate(
                self.template,
                messages,
                counted,
                reasoning=self.reasoning != "context",
                tools=conversation.tools,
                variables=conversation.template_kwargs,
            )
            if not _is_text(located.text):
                return Encoded(None, UNREADABLE, "the text holds half of a surrogate pair")
            marked = None
            if self.template.has_marks:
                marked = self.template.marked(
                    located.messages, conversation.tools, conversation.template_kwargs
                )
        except RenderingError as error:
            return Encoded(None, UNREADABLE, str(error))
        return _Text(located.text, located.spans, located.notes, marked)

    def _joined(self, messages: Sequence[Mapping[str, Any]]) -> _Text | Encoded:
        """Join a prompt and its completion as TRL's `SFTTrainer` does, with the end of a text."""
        prompt, completion = (message["content"] for message in messages)
        end = getattr(self.tokenizer, "eos_token", None) or ""
        text = prompt + completion + ("" if completion.endswith(end) else end)
        if not _is_text(text):
            return Encoded(None, UNREADABLE, "the text holds half of a surrogate pair")
        stop = len(prompt) + len(completion.removesuffix(end))
        return _Text(text, [(len(prompt), stop)], [], None, is_raw=True)

    def _tokenized(self, texts: list[_Text]) -> list[Tokens]:
        made: dict[int, Tokens] = {}
        for raw in (False, True):
            numbers = [i for i, text in enumerate(texts) if text.is_raw == raw]
            if not numbers:
                continue
            encoded = self.tokenizer(
                [texts[i].text for i in numbers],
                add_special_tokens=raw,
                return_offsets_mapping=True,
                verbose=False,
            )
            for i, ids, offsets in zip(
                numbers, encoded["input_ids"], encoded["offset_mapping"], strict=True
            ):
                made[i] = self._counted(texts[i], ids, offsets)
        return [made[i] for i in range(len(texts))]

    def _counted(self, text: _Text, ids: list[int], offsets: list[tuple[int, int]]) -> Tokens:
        """Return the tokens of a text with those that count."""
        tokens = np.array(ids, dtype=np.int64)
        edges = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        starts, stops = edges[:, 0], edges[:, 1]
        is_added = self._is_added[tokens]
        response = np.zeros(len(tokens), dtype=bool)
        for first, last in text.spans:
            overlaps = (starts < last) & (stops > first) & (starts < stops)
            response |= overlaps & (~is_added | ((starts >= first) & (stops <= last)))
        if text.marked is not None:
            marked = np.array(text.marked, dtype=bool)
            if (response & ~marked).any():
                text.notes.append(f"the template marks {_share(response, marked)} of the response")
            response &= marked
        return Tokens(tokens, response)

    def _fitted(self, tokens: Tokens, notes: list[str]) -> Encoded:
        """Truncate a row to the window."""
        ids, response = tokens.ids, tokens.response
        # The first token has no context to be predicted from.
        response[:1] = False
        total = int(response.sum())
        kept = int(response[: self.window].sum())
        if not total:
            return Encoded(None, EMPTY_RESPONSE, "; ".join(["the response has no token", *notes]))
        if not kept:
            first = int(response.argmax())
            return Encoded(
                None,
                TOO_LONG,
                f"{first} tokens precede the response, the window has {self.window}",
            )
        if kept < total:
            notes = [f"truncated: {kept} of {total} response tokens are scored", *notes]
        # A causal model never sees what follows the last target.
        stop = int(np.flatnonzero(response[: self.window])[-1]) + 1
        beyond = self._beyond(ids[:stop])
        if beyond is not None:
            return Encoded(None, UNREADABLE, beyond)
        return Encoded(Tokens(ids[:stop], response[:stop]), OK, "; ".join(notes))

    def _beyond(self, ids: np.ndarray) -> str | None:
        """Return which token has no embedding, None if all have one."""
        if self.vocabulary is None or not (ids >= self.vocabulary).any():
            return None
        first = int(ids[ids >= self.vocabulary][0])
        return (
            f"token {first} ({self.tokenizer.convert_ids_to_tokens(first)!r}) is beyond the "
            f"{self.vocabulary} tokens that the model has an embedding of: use the tokenizer that "
            "the model was trained with, or the model after resize_token_embeddings and training"
        )


class _Text(NamedTuple):
    """A text to tokenize.

    Attributes:
        text: with all that the template writes.
        spans: [start, stop) of the responses in characters.
        notes: what a reader of the score should know.
        marked: of each token whether the template marks it as the assistant's; None without marks.
        is_raw: whether the tokenizer is to add its special tokens.
    """

    text: str
    spans: list[tuple[int, int]]
    notes: list[str]
    marked: list[int] | None
    is_raw: bool = False


def _share(response: np.ndarray, marked: np.ndarray) -> str:
    return "only a part" if (response & marked).any() else "none"


def _is_text(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8: a JSON escape may be half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
