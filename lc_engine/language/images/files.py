"""Images of rows: files, bytes and data URIs, decoded to RGB as `transformers` and TRL do."""

from __future__ import annotations

import base64
import binascii
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes
from urllib.request import url2pathname

from lc_engine._util.extras import require
from lc_engine.data.faults import Fault, describe_error, fault_of, patiently
from lc_engine.data.readers.images import decode_image, to_rgb
from lc_engine.data.readers.records import RowError

if TYPE_CHECKING:
    from lc_engine.language.conversation import RowImage

BAD_IMAGE: Final = "bad_image"
_FILE: Final = "file://"
# The fields of an image of `datasets`, and of one as the API of OpenAI names it.
_HELD_IN: Final = ("bytes", "path", "url")
# Of a path, in most file systems.
_LONGEST_NAME: Final = 4096


def read_image(image: RowImage) -> Any:
    """Return an image of Pillow in RGB, its EXIF orientation applied.

    Raises:
        RowError: "bad_image", it is missing or cannot be read; the text names it.
        OSError: the disk failed.
    """
    pil = require("PIL.Image", "vision")
    try:
        value = _value(image.value)
        if isinstance(value, pil.Image):
            found = to_rgb(value)
        else:
            found = decode_image(
                value if isinstance(value, bytes) else _content(value, image.folder)
            )
    except Exception as error:  # a damaged image raises anything
        if fault_of(error, listed=False) is not Fault.ROW:
            raise
        reason = str(error) if isinstance(error, ValueError) else describe_error(error)
        raise RowError(BAD_IMAGE, f"{image.where}{_named(image.value)}: {reason}") from None
    return require("PIL.ImageOps", "vision").exif_transpose(found)


def local_path(value: Any) -> str | None:
    """Return the path of an image that is a file, as the row writes it; None for any other."""
    try:
        found = _value(value)
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def is_image_file(name: str, folder: Path) -> bool:
    """Return whether there is a file of that name, which may be too long for one.

    Raises:
        OSError: the system does not tell.
    """
    try:
        return (folder / name).is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _value(value: Any) -> Any:
    """Return the path, the bytes or the image of Pillow that a value is.

    Raises:
        ValueError: something else, or a URL.
    """
    if isinstance(value, Mapping):
        if value and not any(name in value for name in _HELD_IN):
            raise ValueError(
                "an image is a path, bytes or a data URI, got the fields "
                f"{', '.join(map(str, value))}: name it {', '.join(_HELD_IN)}"
            )
        value = next((value[name] for name in _HELD_IN if value.get(name) is not None), None)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str) and value.startswith("data:"):
        return _of_data_uri(value)
    if isinstance(value, str) and value.startswith(_FILE):
        return url2pathname(value.removeprefix(_FILE))
    if isinstance(value, str) and "://" in value:
        raise ValueError("it is a URL: download it and name the file")
    if isinstance(value, (str, Path)) and str(value):
        return str(value)
    if isinstance(value, require("PIL.Image", "vision").Image):
        return value
    if value is None or not value:
        raise ValueError("the image is missing")
    raise ValueError(f"an image is a path, bytes or a data URI, got a {type(value).__name__}")


def _of_data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("a data URI has a comma before its content")
    if not head.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is damaged: {error}") from None


def _content(name: str, folder: Path) -> bytes:
    path = folder / name
    if not is_image_file(name, folder):
        if len(name) > _LONGEST_NAME:
            raise ValueError("the name is too long for a file: base64 begins with data:;base64,")
        raise ValueError(f"there is no file {path}")
    return patiently(path.read_bytes, path, listed=False)


def _named(value: Any) -> str:
    """Return the name of an image for an error, if it has one."""
    if isinstance(value, Mapping):
        value = value.get("path") or value.get("url")
    if not isinstance(value, (str, Path)):
        return ""
    return f" ({str(value)[:80]}{'…' if len(str(value)) > 80 else ''})"
