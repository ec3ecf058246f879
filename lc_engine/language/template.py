"""From a conversation to token ids and the positions of the response.

The response is what the assistant says and nothing that the chat template puts around it. Its place
in the rendered text is known by construction: the template is rendered once with marks in place
of the texts, and the texts are put where the marks came out. The tokenizer then sees the whole
text; where one of its tokens would reach over the border of a response, the text is cut there, so
that every token belongs to one side.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

import numpy as np

from lc_engine._util.digests import config_digest
from lc_engine.data.batch import OK, UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.language.formats import Message

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
# Private-use characters: no template looks for them, and no data should hold them.
_MARK: Final = "\ue000{}\ue001"
_MARKS: Final = re.compile("\ue000([0-9]+)\ue001")


class Tokens(NamedTuple):
    """One conversation as a model reads it.

    Attributes:
        ids: (T,) int64 token ids, up to the last that is to be predicted.
        response: (T,) bool, which of them are to be predicted; never the first.
    """

    ids: np.ndarray
    response: np.ndarray


class Encoded(NamedTuple):
    """Tokens, or the status of a row that has none; `detail` also says what was cut away."""

    tokens: Tokens | None
    status: str
    detail: str


class Encoder:
    """Turns conversations into tokens; what `open_source` takes as `transform` for texts.

    Args:
        tokenizer: a fast tokenizer of `transformers` (it must give character offsets).
        window: most tokens that a row may have. A longer row loses its end, so the start of its
            response stays; one without room for any of its response is "too_long".
        chat_template: Jinja text in place of the tokenizer's own. Without either, the headings
            of Alpaca's prompt stand before the turns.
        turns: "all" assistant turns count, or the "last" alone.

    Raises:
        ValueError: a tokenizer without offsets, or an argument that does not fit.
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
                f"tokenizer: {type(tokenizer).__name__} gives no character offsets: use the fast "
                "tokenizer (tokenizer.json) of the model"
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

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[Encoded]:
        """Encode conversations; what is wrong with one is said in its status."""
        placed = [self._place(conversation) for conversation in conversations]
        good = [item for item in placed if isinstance(item, _Text)]
        tokens = iter(self._tokenise(good))
        return [self._fit(next(tokens)) if isinstance(item, _Text) else item for item in placed]

    def describe(self) -> dict[str, Any]:
        """Return what the token ids depend on but the data, as JSON."""
        words = sorted(self.tokenizer.get_vocab().items(), key=lambda pair: pair[1])
        core = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = core.to_str() if core is not None else ""
        return {
            "tokenizer_digest": hashlib.sha256(f"{words}{rules}".encode()).hexdigest(),
            "template_digest": config_digest({"template": self.template}),
            "template": "plain" if self.template == PLAIN_TEMPLATE else "chat",
            "window": self.window,
            "turns": self.turns,
        }

    def _place(self, conversation: Sequence[Message]) -> _Text | Encoded:
        """Render a conversation, and find its responses in the text."""
        wanted = [i for i, message in enumerate(conversation) if message.role == "assistant"]
        if self.turns == "last":
            wanted = wanted[-1:]
        wanted = [i for i in wanted if conversation[i].content.strip()]
        if not wanted:
            return Encoded(None, EMPTY_RESPONSE, "the assistant says nothing")
        try:
            pieces = self._skeleton(tuple(message.role for message in conversation))
            messages = [message._asdict() for message in conversation]
            rendered = self._render(messages)
        except Exception as error:  # a template is a program, and may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            return Encoded(None, UNREADABLE, f"the chat template refuses the row: {reason}")
        if not _is_text(rendered):
            return Encoded(None, UNREADABLE, "half of a surrogate pair is in it, which is no text")
        raw = [message.content for message in conversation]
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
        """Give what the template writes before, between and after the texts of these speakers."""
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

    def _tokenise(self, texts: list[_Text]) -> list[Tokens]:
        if not texts:
            return []
        found: list[Tokens] = []
        for text, (ids, offsets) in zip(
            texts, self._ids([text.text for text in texts]), strict=True
        ):
            cuts = _straddled(offsets, text.responses)
            if cuts:
                ids, offsets = self._cut(text.text, cuts)
            found.append(Tokens(ids, _inside(offsets, text.responses)))
        return found

    def _cut(self, text: str, cuts: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Tokenise the parts of a text one by one."""
        starts = [0, *cuts]
        parts = self._ids([text[a:b] for a, b in zip(starts, [*cuts, len(text)], strict=True)])
        moved = [offsets + start for start, (_, offsets) in zip(starts, parts, strict=True)]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate(moved)

    def _ids(self, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Give the token ids (T,) and the character offsets (T, 2) of each text."""
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [
            (np.array(ids, dtype=np.int64), np.array(spans, dtype=np.int64).reshape(-1, 2))
            for ids, spans in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def _fit(self, tokens: Tokens) -> Encoded:
        """Bring a row into the window, from its end."""
        ids, response = tokens
        # Nothing stands before the first token that it could be predicted from.
        response[:1] = False
        asked = int(response.sum())
        kept = int(response[: self.window].sum())
        if not asked:
            return Encoded(None, EMPTY_RESPONSE, "the response has no token")
        if not kept:
            first = int(response.argmax())
            return Encoded(
                None,
                TOO_LONG,
                f"{first} tokens stand before the response, the window has {self.window}",
            )
        detail = "" if kept == asked else f"truncated: {kept} of {asked} response tokens are scored"
        # What follows the last response token, the end of its turn at least, has no say in it.
        stop = int(np.flatnonzero(response[: self.window])[-1]) + 1
        return Encoded(Tokens(ids[:stop], response[:stop]), OK, detail)


def _is_text(text: str) -> bool:
    """Tell whether a text can be encoded; an escape of JSON can bring half a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Text(NamedTuple):
    text: str
    responses: list[tuple[int, int]]


def _straddled(offsets: np.ndarray, responses: list[tuple[int, int]]) -> list[int]:
    """Find the borders of responses that lie inside a token."""
    borders = np.array(responses, dtype=np.int64).reshape(-1, 1)
    inside = (offsets[:, 0] < borders) & (borders < offsets[:, 1])
    return sorted({int(border) for border in borders[inside.any(1), 0]})


def _inside(offsets: np.ndarray, responses: list[tuple[int, int]]) -> np.ndarray:
    """Tell which tokens lie in a response; an empty token lies nowhere."""
    starts, stops = offsets[:, 0], offsets[:, 1]
    within = np.zeros(len(offsets), dtype=bool)
    for first, last in responses:
        within |= (starts >= first) & (stops <= last) & (starts < stops)
    return within
