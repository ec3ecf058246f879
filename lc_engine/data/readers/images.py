"""Images: decoding one, and a folder with one sub-folder per class."""

from __future__ import annotations

import functools
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import NO_LABEL
from lc_engine.data.faults import patiently
from lc_engine.data.identity import FileStates
from lc_engine.data.ids import id_of_name
from lc_engine.data.readers.image_files import class_folders, flat_images, list_class
from lc_engine.data.readers.rows import RowSource, describe_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.data.readers.rows import Load, Transform

_log = logging.getLogger(__name__)
# Other files of an image folder that its description names.
_NAMED = 10


def encoded_image(value: Any) -> bytes:
    """Return the bytes of an image column's value: bytes, or the struct that `datasets` writes.

    A struct without bytes is read through its path; a relative path is one of the working
    directory, as in `datasets`.

    Raises:
        ValueError: there is neither, or a URL as the path.
        OSError: the file cannot be read.
    """
    content, path = value, None
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path")
    if content is not None:
        return bytes(content)
    if path is None:
        raise ValueError("the image is missing (null)")
    if "://" in path:
        raise ValueError(f"the image has no bytes, and its path {path} is a URL: download it first")
    try:
        return patiently(Path(path).read_bytes, path, listed=False)
    except FileNotFoundError:
        where = "" if Path(path).is_absolute() else f" in the working directory, {Path.cwd()}"
        raise ValueError(f"the image has no bytes, and there is no file {path}{where}") from None


def decode_image(content: bytes) -> Any:
    """Decode an image to RGB of 8 bits.

    Images of 8 bits become what `torchvision.datasets.ImageFolder` returns; like there, an EXIF
    orientation is not applied (of TIFF Pillow does it), and of several frames the first is taken.
    Grey of 16 bits is scaled by 1/257 and floats from 0 to 1 by 255, where torchvision clips them
    to white or black.

    Raises:
        ValueError: not an image, or one of a depth without a known range: integers of 32 bits and
            other floats.
        OSError: a truncated or damaged image.
    """
    pil = require("PIL.Image", "vision")
    try:
        image = pil.open(io.BytesIO(content))
    except require("PIL", "vision").UnidentifiedImageError:
        held = f"{len(content)} bytes that begin with {content[:16]!r}" if content else "no bytes"
        raise ValueError(f"not an image that Pillow can read: {held}") from None
    with image:
        return to_rgb(image)


def to_rgb(image: Any) -> Any:
    """Return an image of Pillow as RGB of 8 bits, with its EXIF; see `decode_image`.

    Raises:
        ValueError: pixels of a depth without a known range.
    """
    if image.mode[0] in "IF":
        pil = require("PIL.Image", "vision")
        grey = pil.fromarray(_to_8_bits(np.asarray(image), image.mode, image.format))
        grey.info = dict(image.info)
        return grey.convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _to_8_bits(pixels: np.ndarray, mode: str, form: str | None) -> np.ndarray:
    """Scale grey values (H, W) of 16 bits, or floats from 0 to 1, to uint8."""
    if mode == "F":
        low, high = float(pixels.min()), float(pixels.max())
        if not np.isfinite(high - low):
            raise ValueError("the pixels hold NaN or infinite values")
        if low < 0 or high > 1:
            raise ValueError(
                f"the pixels are floats from {low:g} to {high:g}: only 0 to 1 can be scaled; "
                "save the image with 8 or 16 bits"
            )
        return (pixels * np.float32(255)).astype(np.uint8)
    # Pillow reads 16-bit PNG and PGM as integers of 32 bits in some versions, scaled to 65,535.
    if mode == "I" and form not in ("PNG", "PPM"):
        raise ValueError(
            "the pixels are 32-bit integers, whose range the file does not tell; save the image "
            "with 8 or 16 bits"
        )
    return (pixels // 257).astype(np.uint8)


class ImageFolderSource(RowSource):
    """A folder of images with one sub-folder per class, in torchvision's layout.

    Classes are the sub-folders sorted by name, rows are the files sorted by path, and a row's id is
    that of its path relative to the folder (`id_of_name`). Files that are no images are counted,
    and folders that cannot be read are in `unreadable`.

    Args:
        root: the folder.
        transform: from an RGB image (PIL) to the model's input tensor.
        num_workers: decoding threads; None takes one per processor.
        flat: whether the images may lie in the folder itself, without classes, where it has no
            sub-folder.

    Raises:
        ValueError: no class folders, or no images in them.
    """

    def __init__(
        self,
        root: Path,
        transform: Transform | None,
        num_workers: int | None,
        *,
        flat: bool = False,
    ) -> None:
        require("PIL.Image", "vision")
        classes, beside = class_folders(root)
        is_flat = flat and not classes and bool(beside.others)
        if not classes and not is_flat:
            raise ValueError(
                f"{root} is no image folder: it must hold one sub-folder per class, or images "
                "alone where labels are not read (--label-kind none)"
            )
        names = [id_of_name(name) for name in classes]
        super().__init__(transform, num_workers, None if is_flat else names)
        self.root = root
        self.paths: list[str] = []
        self.labels: list[int] = []
        self.other_files = beside.others
        self.unreadable = beside.refused
        if is_flat:
            alone = flat_images(root, beside.others)
            self.paths, self.other_files = alone.images, alone.others
            self.labels = [NO_LABEL] * len(self.paths)
        for label, name in enumerate(classes):
            found = patiently(functools.partial(list_class, root, name), root / name)
            self.paths += found.images
            self.labels += [label] * len(found.images)
            self.other_files += found.others
            self.unreadable |= found.refused
        if not self.paths:
            reasons = "".join(f"; {reason}" for reason in list(self.unreadable.values())[:_NAMED])
            where = "" if is_flat else f" in its {len(classes)} class folders"
            raise ValueError(f"{root} holds no images{where}{reasons}")
        self.states = FileStates(self.paths, lambda row: root / self.paths[row])
        self.other_files.sort()
        for reason in self.unreadable.values():
            _log.warning("left out: %s", reason)
        if self.other_files:
            few, count = self.other_files[:_NAMED], len(self.other_files)
            more = ", …" if len(few) < count else ""
            _log.warning(
                "%s of a class: %s%s",
                "1 file is no image" if count == 1 else f"{count:,} files are no images",
                ", ".join(map(id_of_name, few)),
                more,
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def _ids(self, rows: range) -> np.ndarray:
        paths = self.paths[rows.start : rows.stop]
        return np.array([id_of_name(path) for path in paths], dtype=np.str_)

    def _loads(self, rows: range) -> Iterator[Load]:
        return (functools.partial(self._load, row) for row in rows)

    def _load(self, row: int) -> tuple[Callable[[], Any], int]:
        path, listed = self.root / self.paths[row], not self.states.is_dangling(row)
        return lambda: decode_image(patiently(path.read_bytes, path, listed=listed)), self.labels[
            row
        ]

    def check_unchanged(self, rows: range) -> None:
        """Compare the images of some rows with what they were; see `FileStates.check`."""
        self.states.check(rows)

    def digest(self) -> str:
        """Hash the relative path, size and modification time of every image."""
        return self.states.digest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the rows, the classes, the transform, and what is not read."""
        described = {
            "kind": "image_folder",
            "rows": len(self),
            "classes": self.classes,
            "transform": describe_transform(self.transform),
        }
        if self.unreadable:
            described["refused"] = self.unreadable
        if self.other_files:
            few = [id_of_name(path) for path in self.other_files[:_NAMED]]
            described["other_files"] = {"count": len(self.other_files), "first": few}
        return described
