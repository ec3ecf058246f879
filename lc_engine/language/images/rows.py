"""Conversations of rows with images: parts, placeholders and columns become parts in order.

The formats read texts. So each image is taken out of a row before and a marker left in its place,
which becomes a part of the content afterwards.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lc_engine.data.readers.records import RowError
from lc_engine.language.conversation import RowImage
from lc_engine.language.formats import conversations
from lc_engine.language.formats.content import NOT_TEXT
from lc_engine.language.formats.fields import (
    BAD_FIELD,
    SPEAKER,
    TEXT,
    from_json,
    holds_turns,
    transposed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.language.conversation import Conversation
    from lc_engine.language.formats import Format

IMAGE_COUNT: Final = "image_count"

_HERE: Final = Path()

IMAGE_COLUMNS: Final = ("images", "image")
# Columns of what is neither a text nor an image.
_OTHER_MEDIA: Final = ("video", "videos", "audio", "audios")
_IMAGE_PARTS: Final = ("image", "image_url", "input_image")
_OTHER_PARTS: Final = ("video", "video_url", "audio", "audio_url", "input_audio", "file")
# The fields of a part that hold its image.
_REFERENCES: Final = ("image", "image_url", "url", "path", "base64", "bytes")
# What the formats read as texts or turns.
_FIELDS: Final = (
    *("messages", "conversations", "conversation", "prompt", "completion", "response", "chosen"),
    *("rejected", "instruction", "input", "query", "output", "history", "question", "system"),
)
# A placeholder with the line break that sets it apart from the text, as LLaVA writes it.
_PLACEHOLDER: Final = re.compile(r"\n?<image>\Z|<image>\n?")
# Noncharacters of Unicode, which no text holds.
_MARKER: Final = re.compile("\ufdd0(\\d+)\ufdd1")


def read_conversations(row: Any, form: Format, folder: Path = _HERE) -> tuple[Conversation, ...]:
    """Return what one row says, with its images; see `formats.conversations`.

    Images are parts of a content, with a path or the image in them or without, and `<image>` in
    texts; those without an image of their own take the next one of the column `images` or `image`.
    A column without any such place comes before the first turn of the user.

    Args:
        row: the fields by name.
        form: the row's format.
        folder: that relative paths of images are relative to.

    Raises:
        RowError: as `formats.conversations`; "image_count", there are more places than images or
            fewer; "not_text", a video or a sound, or an image in an answer.
    """
    if not isinstance(row, Mapping):
        return conversations(row, form)
    lifted = _Lifted(row, folder)
    said = conversations(lifted.row, form)
    return tuple(lifted.placed(one) for one in said)


def image_values(row: Any) -> Iterator[Any]:
    """Yield the images that a row names or holds, as it writes them, in no particular order."""
    if not isinstance(row, Mapping):
        return
    try:
        lifted = _Lifted(row, _HERE)
    except RowError:  # as its status says
        return
    yield from (image.value for image in (*lifted.own, *lifted.column) if image is not None)


class _Lifted:
    """A row without its images.

    Attributes:
        row: with markers in the place of images.
        own: by the number of a marker its image; None where that is the next one of the column.
        column: images of the column.
    """

    def __init__(self, row: Mapping[str, Any], folder: Path) -> None:
        self._folder = folder
        for name in _OTHER_MEDIA:
            if _is_given(row.get(name)):
                raise RowError(
                    NOT_TEXT, f"the row has a value for {name}, and only texts and images are read"
                )
        self.own: list[RowImage | None] = []
        self.column = [
            RowImage(value, where, folder)
            for name in IMAGE_COLUMNS
            for value, where in _column(row.get(name), name)
        ]
        self.row = {
            name: self._field(value, name) if name in _FIELDS else value
            for name, value in row.items()
            if name not in IMAGE_COLUMNS
        }

    def placed(self, said: Conversation) -> Conversation:
        """Return a conversation with parts in the place of markers, and its images."""
        waiting, images, messages = list(self.column), [], []
        for message in said.messages:
            parts, here = self._parts(message["content"], waiting)
            if here and message["role"] == "assistant":
                raise RowError(NOT_TEXT, "an answer holds an image, and only its texts are scored")
            images += here
            messages.append(message | {"content": parts} if here else message)
        if waiting and not images:
            first = next((i for i, one in enumerate(messages) if one["role"] == "user"), None)
            if first is None:
                raise RowError(IMAGE_COUNT, f"the row has {len(waiting)} images and no user's turn")
            parts = [*({"type": "image"} for _ in waiting), *_texts(messages[first]["content"])]
            messages[first] = messages[first] | {"content": parts}
            images, waiting = waiting, []
        if waiting:
            raise RowError(
                IMAGE_COUNT,
                f"the row has {len(self.column)} images in its column, and places for "
                f"{len(self.column) - len(waiting)}",
            )
        if not images:
            return said
        return dataclasses.replace(said, messages=messages, images=tuple(images), raw=False)

    def _parts(
        self, content: str, waiting: list[RowImage]
    ) -> tuple[list[dict[str, str]], list[RowImage]]:
        """Return the parts of a content, and its images; those of the column are taken from it."""
        parts, images = [], []
        for i, piece in enumerate(_MARKER.split(content)):
            if i % 2 == 0:
                parts += _texts(piece)
                continue
            image = self.own[int(piece)]
            if image is None:
                if not waiting:
                    raise RowError(
                        IMAGE_COUNT,
                        f"the row has more places for images than images: {len(self.column)} in "
                        "its column",
                    )
                image = waiting.pop(0)
            images.append(image)
            parts.append({"type": "image"})
        return parts, images

    def _field(self, given: Any, where: str) -> Any:
        value = given
        if holds_turns(given) or where == "history":
            value = from_json(given)
        if isinstance(value, Mapping):
            turns = transposed(value)
            value = self._turn(value, where) if turns is None else turns
        if isinstance(value, (list, tuple)):
            return [self._item(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return self._text(value, where) if isinstance(value, str) else value

    def _item(self, value: Any, where: str) -> Any:
        if isinstance(value, Mapping) and any(name in value for name in SPEAKER):
            return self._turn(value, where)
        if isinstance(value, Mapping):
            return self._part(value, where)
        if isinstance(value, (list, tuple)):  # a round of a history
            return [self._item(one, f"{where}[{i}]") for i, one in enumerate(value)]
        return self._text(value, where) if isinstance(value, str) else value

    def _turn(self, turn: Mapping[str, Any], where: str) -> dict[str, Any]:
        made = dict(turn)
        for name in TEXT:
            content = turn.get(name)
            if isinstance(content, str):
                made[name] = self._text(content, where)
            elif isinstance(content, (list, tuple)):
                made[name] = [
                    self._item(part, f"{where}.{name}[{i}]") for i, part in enumerate(content)
                ]
        return made

    def _part(self, part: Mapping[str, Any], where: str) -> Any:
        kind = part.get("type")
        if kind in _OTHER_PARTS:
            raise RowError(
                NOT_TEXT, f"{where} is a part of type {kind}, and only texts and images are read"
            )
        if kind in _IMAGE_PARTS:
            return {"type": "text", "text": self._marked(self._reference(part, where))}
        if isinstance(part.get("text"), str):
            return {**part, "text": self._text(part["text"], where)}
        return part

    def _reference(self, part: Mapping[str, Any], where: str) -> RowImage | None:
        """Return the image of a part; None where it is the next one of the column."""
        index = part.get("index")
        if isinstance(index, int) and not isinstance(index, bool):
            if not 0 <= index < len(self.column):
                raise RowError(
                    IMAGE_COUNT,
                    f"{where} is image {index}, and the row has {len(self.column)} in its column",
                )
            if index != sum(image is None for image in self.own):
                raise RowError(BAD_FIELD, f"{where} is image {index}: put them in their order")
            return None
        value = next((part[name] for name in _REFERENCES if part.get(name) is not None), None)
        if isinstance(value, Mapping) and isinstance(value.get("url"), str):
            value = value["url"]
        if value is None:
            return None
        if isinstance(value, str) and part.get("base64") is value:
            value = f"data:;base64,{value}"
        return RowImage(value, where, self._folder)

    def _text(self, text: str, where: str) -> str:
        for name in ("video", "audio"):
            if f"<{name}>" in text and f"</{name}>" not in text:
                raise RowError(
                    NOT_TEXT,
                    f"{where} has the placeholder <{name}>, and only texts and images are read",
                )
        if "\ufdd0" in text:
            raise RowError(BAD_FIELD, f"{where} holds U+FDD0, which is no character")
        if "<image>" not in text or "</image>" in text:
            return text
        return _PLACEHOLDER.sub(lambda _: self._marked(None), text)

    def _marked(self, image: RowImage | None) -> str:
        self.own.append(image)
        return f"\ufdd0{len(self.own) - 1}\ufdd1"


def _texts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}] if text else []


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, (str, list, tuple)) and not len(value))


def _column(given: Any, name: str) -> list[tuple[Any, str]]:
    """Return the images of a column and their places: one or a list, also as JSON text."""
    value = from_json(given)
    if not _is_given(value):
        return []
    if not isinstance(value, (list, tuple)):
        return [(value, name)]
    return [(one, f"{name}[{i}]") for i, one in enumerate(value)]
