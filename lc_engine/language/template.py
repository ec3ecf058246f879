"""From conversations to token ids and a mask of the response tokens.

The response is the assistant's text, without what the chat template puts around it. Its position in
the rendered text is known by construction: the template is rendered once with marks in place of the
texts, and the texts are substituted for the marks. The tokenizer then encodes the whole text; where
a token would straddle the boundary of a response, the text is cut there, so that every token lies
on one side.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

import numpy as np

from lc_engine._util.digests import config_digest
from lc_engine.data.batch import OK, UNREADABLE
from lc_engine.language.formats import check_format
from lc_engine.language.source import InstructionSource, open_records
from lc_engine.language.tokens import Encoded, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.language.conversation import Conversation

Turns = Literal["all", "last"]

EMPTY_RESPONSE: Final = "empty_response"
TOO_LONG: Final = "too_long"

# For tokenizers without a chat template: the headings of Alpaca's prompt, for any number of turns.
PLAIN_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '### Response:\\n' + message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
# Private-use characters: templates do not test for them, and data should not hold them.
_MARK: Final = "\ue000{}\ue001"
_MARKS: Final = re.compile("\ue000([0-9]+)\ue001")


class Encoder:
    """Encodes conversations; the transform that `open_source` takes for instruction sets.

    Args:
        tokenizer: a fast tokenizer of `transformers` (one with character offsets).
        window: most tokens of a row. A longer row is truncated at its end, so the start of its
            response stays; one whose response begins after the window is "too_long".
        chat_template: Jinja text in place of the tokenizer's own. Without either, the headings
            of Alpaca's prompt precede the turns.
        turns: "all" assistant turns count, or only the "last".

    Raises:
        ValueError: a tokenizer without offsets, or an invalid argument.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        window: int,
        chat_template: str | None = None,
        turns: Turns = "all",
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
        self.tokenizer = tokenizer
        self.window = window
        self.turns = turns
        own = getattr(tokenizer, "chat_template", None)
        if isinstance(own, dict):
            own = own.get("default")
        self.template: str = chat_template or own or PLAIN_TEMPLATE
        self._skeletons: dict[tuple[str, ...], list[str]] = {}

    def open_source(self, data: Any, form: str | None = None) -> InstructionSource:
        """Open an instruction set.

        Args:
            data: see `open_records`.
            form: "alpaca", "sharegpt", "messages" or "prompt_completion"; None detects it from
                the fields.

        Raises:
            FileNotFoundError: the path does not exist.
            ValueError: data of an unknown kind or format.
        """
        check_format(form)
        return InstructionSource(open_records(data), self, form)

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded]:
        """Encode conversations; the status of each says what is wrong with it."""
        rendered = [self._rendered(conversation) for conversation in conversations]
        good = [item for item in rendered if isinstance(item, _Text)]
        tokens = iter(self._tokenized(good))
        return [self._fitted(next(tokens)) if isinstance(r, _Text) else r for r in rendered]

    def describe(self) -> dict[str, Any]:
        """Return what the token ids depend on besides the data, as JSON."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda pair: pair[1])
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = backend.to_str() if backend is not None else ""
        return {
            "tokenizer_digest": hashlib.sha256(f"{vocabulary}{rules}".encode()).hexdigest(),
            "template_digest": config_digest({"template": self.template}),
            "template": "plain" if self.template == PLAIN_TEMPLATE else "chat",
            "window": self.window,
            "turns": self.turns,
        }

    def _rendered(self, conversation: Conversation) -> _Text | Encoded:
        """Render a conversation, and locate its responses in the text."""
        messages = conversation.messages
        wanted = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if self.turns == "last":
            wanted = wanted[-1:]
        wanted = [i for i in wanted if messages[i]["content"].strip()]
        if not wanted:
            return Encoded(None, EMPTY_RESPONSE, "no assistant turn has any text")
        try:
            pieces = self._skeleton(tuple(message["role"] for message in messages))
            rendered = self._render(messages)
        except Exception as error:  # a template is a program, and may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            return Encoded(None, UNREADABLE, f"the chat template rejects the row: {reason}")
        if not _is_text(rendered):
            return Encoded(None, UNREADABLE, "the text holds half of a surrogate pair")
        raw = [message["content"] for message in messages]
        for texts in (raw, [text.strip() for text in raw]):
            parts = [pieces[0]]
            for text, piece in zip(texts, pieces[1:], strict=True):
                parts += [text, piece]
            if "".join(parts) == rendered:
                ends = np.cumsum([len(part) for part in parts])
                return _Text(rendered, [(int(ends[2 * i]), int(ends[2 * i + 1])) for i in wanted])
        return Encoded(
            None,
            UNREADABLE,
            "the chat template changes the texts of this row, so its response cannot be located",
        )

    def _skeleton(self, roles: tuple[str, ...]) -> list[str]:
        """Return what the template writes before, between and after texts of these roles."""
        if roles not in self._skeletons:
            marked = [{"role": role, "content": _MARK.format(i)} for i, role in enumerate(roles)]
            pieces = _MARKS.split(self._render(marked))
            if pieces[1::2] != [str(i) for i in range(len(roles))]:
                raise ValueError(f"it does not write every turn of {', '.join(roles)} once")
            self._skeletons[roles] = pieces[::2]
        return self._skeletons[roles]

    def _render(self, messages: list[dict[str, Any]]) -> str:
        rendered = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False
        )
        assert isinstance(rendered, str)
        return rendered

    def _tokenized(self, texts: list[_Text]) -> list[Tokens]:
        if not texts:
            return []
        rows: list[Tokens] = []
        for text, (ids, offsets) in zip(
            texts, self._ids([text.text for text in texts]), strict=True
        ):
            cuts = _straddled(offsets, text.responses)
            if cuts:
                ids, offsets = self._cut(text.text, cuts)
            rows.append(Tokens(ids, _inside(offsets, text.responses)))
        return rows

    def _cut(self, text: str, cuts: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Tokenize the parts of a text one by one."""
        starts = [0, *cuts]
        parts = self._ids([text[a:b] for a, b in zip(starts, [*cuts, len(text)], strict=True)])
        shifted = [offsets + start for start, (_, offsets) in zip(starts, parts, strict=True)]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate(shifted)

    def _ids(self, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the token ids (T,) and the character offsets (T, 2) of each text."""
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [
            (np.array(ids, dtype=np.int64), np.array(spans, dtype=np.int64).reshape(-1, 2))
            for ids, spans in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def _fitted(self, tokens: Tokens) -> Encoded:
        """Truncate a row to the window."""
        ids, response = tokens
        # The first token has no context to be predicted from.
        response[:1] = False
        total = int(response.sum())
        kept = int(response[: self.window].sum())
        if not total:
            return Encoded(None, EMPTY_RESPONSE, "the response has no token")
        if not kept:
            first = int(response.argmax())
            return Encoded(
                None,
                TOO_LONG,
                f"{first} tokens precede the response, the window has {self.window}",
            )
        detail = "" if kept == total else f"truncated: {kept} of {total} response tokens are scored"
        # A causal model never sees what follows the last target.
        stop = int(np.flatnonzero(response[: self.window])[-1]) + 1
        return Encoded(Tokens(ids[:stop], response[:stop]), OK, detail)


def _is_text(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8: a JSON escape may be half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Text(NamedTuple):
    """A rendered conversation, and the spans [start, stop) of its responses in characters."""

    text: str
    responses: list[tuple[int, int]]


def _straddled(offsets: np.ndarray, responses: list[tuple[int, int]]) -> list[int]:
    """Return the boundaries of responses that lie inside a token."""
    boundaries = np.array(responses, dtype=np.int64).reshape(-1, 1)
    inside = (offsets[:, 0] < boundaries) & (boundaries < offsets[:, 1])
    return sorted({int(boundary) for boundary in boundaries[inside.any(1), 0]})


def _inside(offsets: np.ndarray, responses: list[tuple[int, int]]) -> np.ndarray:
    """Return which tokens (T,) lie in a response; an empty token never does."""
    starts, stops = offsets[:, 0], offsets[:, 1]
    within = np.zeros(len(offsets), dtype=bool)
    for first, last in responses:
        within |= (starts >= first) & (stops <= last) & (starts < stops)
    return within
