"""Score tables to make pages of, and what a page holds."""

from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import PIL.Image
import torch
from safetensors.torch import save_file

import lc_engine as lc
from lc_engine.data.open import open_source
from lc_engine.data.table import ScoreTable
from lc_engine.path.learning_path import LearningPath

PATH = LearningPath.gauss(4, 0.3, 1.0)
HOSTILE = '</script><img src=x onerror="document.title=1"><b>'


def scored(seed, rows=60, classes=4, *, path=True, bad=7, names=None, **metadata):
    """Return random scores, no two equal; every `bad`-th row could not be read."""
    rng = np.random.default_rng(seed)
    # A row has a level, so that the path of some is low everywhere.
    level = rng.uniform(0.0, 1, (rows, 1))
    p = np.clip(level * rng.uniform(0.6, 1, (rows, len(PATH))), 1e-4, 1)
    status = np.where(np.arange(rows) % bad == bad - 1, "unreadable", "ok")
    log_probs = np.log(p).astype(np.float32)
    log_probs[status != "ok"] = np.nan
    weights = np.array(PATH.weights)
    mean = p @ weights
    return ScoreTable.from_arrays(
        ids=np.array([f"row-{i}" for i in range(rows)] if names is None else names),
        labels=rng.integers(0, classes, rows) if classes else np.full(rows, -1),
        lc=mean.astype(np.float32),
        loss=(-np.log(p) @ weights).astype(np.float32),
        lc_std=np.sqrt(np.maximum(p**2 @ weights - mean**2, 0)).astype(np.float32),
        status=status.tolist(),
        detail=["" if s == "ok" else "broken" for s in status],
        metadata={"path": PATH.to_dict(), "head": {"kind": "linear"}, **metadata},
        path_log_probs=log_probs if path else None,
    )


def folder_of_images(root, rows):
    """Write images of one colour each, and return their scores and the folder."""
    rng = np.random.default_rng(0)
    folder = root / "images"
    for i in range(rows):
        file = folder / f"class{i % 2}" / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (10, 20, 3))
        PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(file)
    source = open_source(folder, transform=lambda _: torch.zeros(1))
    names = np.concatenate([batch.ids for batch in source.batches(100)])
    return scored(0, rows, 2, names=names, bad=10**6, data_digest="of another day"), folder


def dense(features, labels, head):
    """Write 40 rows of features, their labels, and a linear head."""
    rng = np.random.default_rng(0)
    np.save(features, rng.standard_normal((40, 16)).astype(np.float32))
    np.save(labels, rng.integers(0, 3, 40))
    save_file({"weight": torch.randn(3, 16), "bias": torch.zeros(3)}, head)


def blobs(root):
    """Score 3 classes of features, far apart; six of 120 rows have the label of another class.

    Returns:
        The folder of the scores, the true classes and the labels.
    """
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 3
    x = (4 * np.eye(3)[truth] + 0.3 * rng.standard_normal((120, 3))).astype(np.float32)
    labels = truth.copy()
    labels[:6] = (truth[:6] + 1) % 3
    head = torch.nn.Linear(3, 3)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(np.eye(3) + 0.1 * rng.standard_normal((3, 3))))
        head.bias.zero_()
    scorer = lc.Scorer(
        head,
        head="linear",
        path=lc.LearningPath.explicit([1.0, 0.6]),
        masking=lc.Masking(weights="head"),
    )
    lc.score(scorer, (x, labels), root / "scores", features=True, return_path=True)
    return root / "scores", truth, labels


def payload(page):
    """Return the data that a page's script reads."""
    packed = re.search(r'id="payload">(.*?)<', page.read_text(encoding="utf-8"))[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))
