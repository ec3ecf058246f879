"""Small images, and `lc-engine prune` on data."""

from __future__ import annotations

import json

import numpy as np

from lc_engine.cli import main as cli


def pictures(count, seed=0):
    """Images (32, 32, 3), and labels of three classes by their colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 60, (count, 32, 32, 3)).astype(np.uint8)
    for row, label in enumerate(labels):
        pixels[row, :, :, label] += 150
    return pixels, labels


def prune(model, data, out, *more):
    return cli.run(["prune", *model, f"--data={data}", f"--out={out}", *map(str, more)])


def selection(out):
    return json.loads((out / "selection.json").read_text(encoding="utf-8"))


def names(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
