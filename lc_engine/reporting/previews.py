"""Previews of rows: a small WebP of an image, the turns of a text."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.readers.records import RowError
from lc_engine.language.images.files import read_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from lc_engine.language.conversation import Conversation

SIDE = 96  # pixels of a thumbnail
_QUALITIES = (70, 30, 0)  # the first whose WebP fits
_BYTES = 12_288
_TEXT = 1200  # characters of a turn
_TURNS = 8
_RESPONSES = ("assistant", "chosen", "rejected")


class Turn(NamedTuple):
    """A turn of a conversation as a person reads it.

    Attributes:
        role: who speaks; "chosen" and "rejected" are the last turns of a preference pair.
        text: what is said.
        tokens: of a response (text, NLL in nats under the whole model), None where not computed.
    """

    role: str
    text: str
    tokens: list[tuple[str, float]] | None = None

    @property
    def is_response(self) -> bool:
        """Whether the turn is scored, and not only read."""
        return self.role in _RESPONSES


class Preview(NamedTuple):
    """What a person sees of a row: an image as a data URI, turns, or both."""

    image: str | None = None
    turns: Sequence[Turn] = ()

    @property
    def is_pair(self) -> bool:
        """Whether two responses are to be compared."""
        return any(turn.role == "rejected" for turn in self.turns)

    @property
    def size(self) -> int:
        """Characters of the image's data URI, or of the texts with their markup."""
        texts = sum(len(turn.text) + 40 * len(turn.tokens or ()) for turn in self.turns)
        return len(self.image or "") + texts

    def webp(self) -> bytes:
        """Return the image."""
        assert self.image is not None
        return base64.b64decode(self.image.partition(",")[2])

    def text(self) -> str:
        """Return the turns as one text."""
        return "\n\n".join(f"{turn.role}: {turn.text}" for turn in self.turns)

    def to_dict(self) -> dict[str, Any]:
        """Return the preview as JSON values."""
        shown: dict[str, Any] = {"image": self.image} if self.image else {}
        return shown | {"turns": self.turns} if self.turns or not shown else shown


def of_conversations(said: Sequence[Conversation]) -> Preview:
    """Return the turns of a row, and its first image.

    Of a preference pair there is also the last turn of the rejected answer.
    """
    turns: list[Mapping[str, Any]] = [*said[0].messages]
    if len(said) > 1:
        turns[-1] = {**turns[-1], "role": "chosen"}
        turns.append({**said[-1].messages[-1], "role": "rejected"})
    return Preview(_first_image(said[0]), list(_shortened(turns)))


def _first_image(said: Conversation) -> str | None:
    """Return a small copy of the first image as a data URI; None without a readable one."""
    if not said.images:
        return None
    try:
        image = read_image(said.images[0])
    except RowError:  # as the row's status says
        return None
    preview = of_image(thumbnail(image))
    return None if preview is None else preview.image


def of_columns(fields: Mapping[str, Any], columns: Sequence[str]) -> Preview:
    """Return the texts of a row that an encoder read, each as a turn of its column."""
    turns = [
        {
            "role": name,
            "content": " ".join(map(str, value)) if isinstance(value, list) else str(value),
        }
        for name in columns
        if (value := fields.get(name)) is not None
    ]
    return Preview(turns=list(_shortened(turns)))


def _shortened(turns: Sequence[Mapping[str, Any]]) -> Iterator[Turn]:
    """Keep the beginning and the last turns, as the response is among those."""
    left_out = len(turns) - _TURNS
    shown = turns if left_out <= 0 else [*turns[:1], *turns[1 + left_out :]]
    for at, turn in enumerate(shown):
        if left_out > 0 and at == 1:
            yield Turn("…", f"{left_out} more turns")
        text = _text(turn["content"])
        rest = len(text) - _TEXT
        more = f" … ({rest:,} more characters)" if rest > 0 else ""
        calls = "".join(f"\n{call}" for call in turn.get("tool_calls") or ())
        yield Turn(turn["role"], (text[:_TEXT] + more + calls[:_TEXT]).lstrip("\n"))


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    """Return what a turn says, with a word in the place of each image."""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "[image]") for part in content)


def thumbnail(image: Any) -> torch.Tensor:
    """Return a WebP of an image, at most SIDE pixels wide and high, padded to (_BYTES,) uint8.

    Encoded here, by the threads that decode, and as a tensor, because a transform returns one.
    """
    import torch

    pil = require("PIL.Image", "report")
    scale = SIDE / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    # Few pixels are kept as pixels; many are averaged.
    small = image.resize(size, pil.Resampling.NEAREST if scale > 1 else pil.Resampling.BOX)
    for quality in _QUALITIES:
        stream = io.BytesIO()
        small.save(stream, "WEBP", quality=quality, method=2)
        if stream.tell() <= _BYTES:
            break
    return torch.from_numpy(np.frombuffer(stream.getvalue().ljust(_BYTES, b"\0"), np.uint8).copy())


def of_image(padded: torch.Tensor) -> Preview | None:
    """Return the preview of what `thumbnail` made; None for another input, such as features."""
    if padded.shape != (_BYTES,) or str(padded.dtype) != "torch.uint8":
        return None
    content = padded.numpy().tobytes()
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return None
    content = content[: 8 + int.from_bytes(content[4:8], "little")]
    return Preview(image="data:image/webp;base64," + base64.b64encode(content).decode())
