"""Images: decoding one, and a folder with one sub-folder per class."""

from __future__ import annotations

import functools
import hashlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.readers.rows import RowSource, describe_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lc_engine.data.readers.rows import Load, Transform

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


def decode_image(content: bytes) -> Any:
    """Decode an image to RGB, as `torchvision.datasets.ImageFolder` does.

    Like there, an EXIF orientation is not applied. A truncated file raises.
    """
    with require("PIL.Image", "vision").open(io.BytesIO(content)) as image:
        if image.mode == "P" and "transparency" in image.info:
            return image.convert("RGBA").convert("RGB")
        return image.convert("RGB")


class ImageFolderSource(RowSource):
    """A folder of images with one sub-folder per class, in torchvision's layout.

    Classes are the sub-folders sorted by name, rows are the files sorted by path, and a row's id is
    its path relative to the folder.

    Args:
        root: the folder.
        transform: from an RGB image (PIL) to the model's input tensor.
        num_workers: decoding threads; None takes one per processor.

    Raises:
        ValueError: no class folders, or no images in them.
    """

    def __init__(self, root: Path, transform: Transform | None, num_workers: int | None) -> None:
        require("PIL.Image", "vision")
        classes = sorted(
            entry.name
            for entry in root.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        )
        if not classes:
            raise ValueError(f"{root} is no image folder: it must hold one sub-folder per class")
        super().__init__(transform, num_workers, classes)
        self.root = root
        self.paths: list[str] = []
        self.labels: list[int] = []
        for label, name in enumerate(classes):
            found = sorted(
                file.relative_to(root).as_posix()
                for file in (root / name).rglob("*")
                if file.suffix.lower() in SUFFIXES and file.is_file()
            )
            self.paths += found
            self.labels += [label] * len(found)
        if not self.paths:
            raise ValueError(
                f"{root} holds no images in its {len(classes)} class folders; known suffixes: "
                f"{' '.join(sorted(SUFFIXES))}"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def _ids(self, rows: range) -> np.ndarray:
        return np.array(self.paths[rows.start : rows.stop], dtype=np.str_)

    def _loads(self, rows: range) -> Iterator[Load]:
        return (functools.partial(self._load, row) for row in rows)

    def _load(self, row: int) -> tuple[Callable[[], Any], int]:
        path = self.root / self.paths[row]
        return lambda: decode_image(path.read_bytes()), self.labels[row]

    def digest(self) -> str:
        """Hash the relative path, size and modification time of every image."""
        digest = hashlib.sha256()
        for path in self.paths:
            state = (self.root / path).stat()
            digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the kind, the rows, the classes and the transform."""
        return {
            "kind": "image_folder",
            "rows": len(self),
            "classes": self.classes,
            "transform": describe_transform(self.transform),
        }
