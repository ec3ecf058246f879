"""From conversations with images to token ids, pixels and a mask of the response tokens.

The chat template writes a placeholder for each image, and the processor replaces it with as many
tokens as the image has, and says where. Answers are located in the text before that, so it is known
which characters count afterwards; the tokens of the answers must be the same before and after.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import UNREADABLE
from lc_engine.data.faults import Fault, describe_error, fault_of
from lc_engine.data.readers.records import RowError
from lc_engine.language.encoder import TOO_LONG, Encoder
from lc_engine.language.images.files import BAD_IMAGE, read_image
from lc_engine.language.images.rows import IMAGE_COUNT, read_conversations
from lc_engine.language.images.source import ImageTextSource
from lc_engine.language.source import open_records
from lc_engine.language.tokens import Encoded, Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from lc_engine.language.conversation import Conversation
    from lc_engine.language.encoder import _Text
    from lc_engine.language.formats import Format

_OFFSETS: Final = "offset_mapping"
_REPLACED: Final = "text_replacement_offsets"
# Side of the image that a processor is tried with.
_PROBE: Final = 64


class ImageTextEncoder(Encoder):
    """Encodes conversations with images; see `Encoder`.

    Args:
        processor: of `transformers`, with a fast tokenizer and an image processor.
        chat_template: Jinja text in place of the processor's own.
        **options: of `Encoder`.

    Raises:
        ValueError: a processor without a chat template, or one that does not say where it writes
            the tokens of images; or as of `Encoder`.
    """

    def __init__(self, processor: Any, *, chat_template: str | None = None, **options: Any) -> None:
        # A copy: the template that counts is the processor's.
        tokenizer = copy.copy(processor.tokenizer)
        own = getattr(processor, "chat_template", None) or tokenizer.chat_template
        if chat_template is None and not own:
            raise ValueError(
                f"the processor {type(processor).__name__} has no chat template: pass the one that "
                "the model was trained with as chat_template"
            )
        tokenizer.chat_template = own
        super().__init__(tokenizer, chat_template=chat_template, **options)
        self.processor = processor
        # A grey image between two letters.
        self.probe = self._probed()

    def open_source(self, data: Any, form: str | None = None) -> ImageTextSource:
        """Open an instruction set; see `Encoder.open_source`."""
        return ImageTextSource(open_records(data), self, form)

    def read(self, row: Any, form: Format, folder: Path) -> tuple[Conversation, ...]:
        """Return what a row says, with its images; see `images.rows.read_conversations`."""
        return read_conversations(row, form, folder)

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded]:
        """Encode conversations one by one; the status of each says what is wrong with it."""
        return [self._encoded(conversation) for conversation in conversations]

    def describe(self) -> dict[str, Any]:
        """Return what tokens and pixels depend on besides the data, as JSON."""
        settings = self.processor.to_json_string()
        return super().describe() | {
            "processor": type(self.processor).__name__,
            "processor_digest": hashlib.sha256(settings.encode()).hexdigest(),
        }

    def _probed(self) -> Tokens:
        """Return a row with an image; refuse a processor that this class does not understand.

        Raises:
            ValueError: it fails, or does not say which part of a text it has replaced.
        """
        name = type(self.processor).__name__
        token = getattr(self.processor, "image_token", None)
        if not isinstance(token, str):
            raise ValueError(f"the processor {name} has no image token, so images have no place")
        grey = require("PIL.Image", "vision").new("RGB", (_PROBE, _PROBE), (128, 128, 128))
        try:
            found = self._processed(f"a{token}b", [grey], special=False)
            known = [len(found.get(name, ())) for name in (_OFFSETS, _REPLACED)] == [1, 1]
        except Exception as error:  # the code of a processor may raise anything
            raise ValueError(
                f"the processor {name} is not understood: {describe_error(error)}"
            ) from None
        if not known or len(found[_REPLACED][0]) != 1:
            raise ValueError(
                f"the processor {name} does not say where it writes the tokens of images "
                "(return_text_replacement_offsets, of transformers 5.24)"
            )
        ids, inputs = self._tensors(found)
        return Tokens(ids, np.zeros(len(ids), dtype=bool), inputs)

    def _encoded(self, conversation: Conversation) -> Encoded:
        text = self._rendered(conversation)
        if isinstance(text, Encoded):
            return text
        images = conversation.images
        written = text.text.count(self.processor.image_token)
        if written != len(images):
            return Encoded(
                None,
                IMAGE_COUNT,
                f"the chat template writes {self.processor.image_token} {written} times, and the "
                f"row has {len(images)} images",
            )
        try:
            read = [read_image(image) for image in images]
        except RowError as error:
            return Encoded(None, error.status, str(error))
        return self._with_images(text, read)

    def _with_images(self, text: _Text, images: list[Any]) -> Encoded:
        """Return the tokens of a text with those of its images."""
        plain = self.tokenizer(
            text.text, add_special_tokens=text.is_raw, return_offsets_mapping=True, verbose=False
        )
        before = self._counted(text, plain["input_ids"], plain[_OFFSETS])
        if text.is_raw:
            return self._fitted(before, text.notes)
        bos = self.tokenizer.bos_token
        # As `apply_chat_template` of processors: a template may write the start of a text itself.
        special = bos is None or not text.text.startswith(bos)
        try:
            found = self._processed(text.text, images, special)
        except Exception as error:  # such as an image that is a thousand times wider than high
            if fault_of(error) is not Fault.ROW:
                raise
            return Encoded(None, BAD_IMAGE, f"the processor fails: {describe_error(error)}")
        offsets = found[_OFFSETS][0]
        replaced = found[_REPLACED][0] if images else []
        ids, inputs = self._tensors(found)
        counted = _characters(len(text.text), plain[_OFFSETS], before.response)
        response = _overlapping(offsets, _expanded(counted, replaced))
        if not np.array_equal(ids[response], before.ids[before.response]):
            return Encoded(None, UNREADABLE, "the processor tokenizes the answers differently")
        tokens = Tokens(ids, response, inputs if images else None)
        last = replaced[-1]["new_span"][1] if replaced else 0
        within = [i for i, (start, stop) in enumerate(offsets) if start < min(stop, last)]
        return self._fitted(tokens, text.notes, max(within, default=-1) + 1)

    def _tensors(self, found: Any) -> tuple[np.ndarray, dict[str, Tensor]]:
        """Return the ids of what `_processed` returned, and the other inputs as tensors."""
        for name in (_OFFSETS, _REPLACED):
            found.pop(name, None)
        ids = np.array(found.pop("input_ids")[0], dtype=np.int64)
        return ids, dict(found.convert_to_tensors("pt"))

    def _processed(self, text: str, images: list[Any], special: bool) -> Any:
        options = {"add_special_tokens": special, "return_offsets_mapping": True}
        if not images:
            return self.tokenizer([text], verbose=False, **options)
        return self.processor(
            text=[text], images=[images], return_text_replacement_offsets=True, **options
        )

    def _fitted(self, tokens: Tokens, notes: list[str], images_end: int = 0) -> Encoded:
        """Truncate a row to the window, but behind the tokens up to its last image's."""
        found = super()._fitted(tokens, notes)
        if tokens.inputs is None or found.tokens is None:
            return found
        stop = max(len(found.tokens.ids), images_end)
        if stop > self.window:
            detail = f"{stop} tokens end with an image, the window has {self.window}"
            return Encoded(None, TOO_LONG, detail)
        total = len(tokens.ids)
        inputs = {
            name: value[:, :stop] if value.dim() > 1 and value.shape[:2] == (1, total) else value
            for name, value in tokens.inputs.items()
        }
        return found._replace(tokens=Tokens(tokens.ids[:stop], tokens.response[:stop], inputs))


def _characters(
    length: int, offsets: Sequence[tuple[int, int]], response: np.ndarray
) -> np.ndarray:
    """Return which characters of a text (C,) are of tokens that count.

    Args:
        length: C.
        offsets: [start, stop) of T tokens.
        response: (T,) which of them count.
    """
    counted = np.zeros(length, dtype=bool)
    for token in np.flatnonzero(response).tolist():
        start, stop = offsets[token]
        counted[start:stop] = True
    return counted


def _expanded(counted: np.ndarray, replaced: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return which characters count after placeholders were replaced; those of images do not.

    Args:
        counted: (C,) before.
        replaced: "span" of each placeholder before, and "new_span" of what took its place.
    """
    parts, last = [], 0
    for one in replaced:
        (start, stop), (first, end) = one["span"], one["new_span"]
        parts += [counted[last:start], np.zeros(end - first, dtype=bool)]
        last = stop
    return np.concatenate([*parts, counted[last:]])


def _overlapping(offsets: Sequence[tuple[int, int]], counted: np.ndarray) -> np.ndarray:
    """Return which tokens (T,) have a character that counts."""
    before = np.concatenate([[0], counted.cumsum()])
    edges = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    return np.asarray(before[edges[:, 1]] > before[edges[:, 0]])
