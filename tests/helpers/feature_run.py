"""A run over a small file of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

import lc_engine as lc
from lc_engine.data.open import open_source

ROWS, WIDTH, CLASSES = 1000, 12, 5


def write_features(folder):
    """Features in three kinds of file, a few rows of them bad."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    y = rng.integers(0, CLASSES, ROWS)
    x[17, 2], x[500, 0], y[801] = np.nan, np.inf, CLASSES
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), WIDTH)
    pq.write_table(pa.table({"x": lists, "label": y}), folder / "x.parquet", row_group_size=333)
    return x, y


def scorer():
    """A scorer of a linear head, the same each time, in two threads at once too."""
    # Not of the generator that all threads share: one could draw the other's weights.
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(WIDTH, CLASSES)
    for parameter in head.parameters():
        nn.init.uniform_(parameter, -(WIDTH**-0.5), WIDTH**-0.5, generator=generator)
    masking = lc.Masking(weights="head")
    return lc.Scorer(head, head="linear", path=lc.LearningPath.linear(3, 0.3, 1.0), masking=masking)


def run(folder, out, kind="npy", **options):
    labels = folder / "y.npy" if kind == "npy" else None
    return lc.score(scorer(), open_source(folder / f"x.{kind}", labels=labels), out, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
