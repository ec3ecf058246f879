"""Files of an image folder: hard links where the file system has them, else copies."""

from __future__ import annotations

import os
import shutil
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def link_files(root: Path, names: Iterable[str], out: Path) -> int:
    """Give files a second name below another folder.

    Args:
        root: the folder.
        names: of files in it, as relative paths. Of a link the file that it leads to is taken.
        out: the folder to fill.

    Returns:
        How many files were copied, since the file system has no links from there to here.
    """
    copied = 0
    made: set[str] = set()
    for name in names:
        folder = str(PurePath(name).parent)
        if folder not in made:
            (out / folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
        source = os.path.realpath(root / name)
        try:
            os.link(source, out / name)
        except OSError:
            # Another file system, no permission, too many links: a copy says what is wrong if even
            # that fails.
            shutil.copy2(source, out / name)
            copied += 1
    return copied
