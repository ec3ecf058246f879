"""Features of every image under every sub-model, computed once and kept on disk.

A path is named "how kind", such as "calibrated magnitude"; all have K sub-models but "full" and
"exits":
    full         the model alone, K = 1
    published    geometric, from 1.0 down to 0.372, as in the released code of arXiv 2402.05356
    gauss        the default of `Scorer`: Gauss-Legendre, down to 0.02
    calibrated   equal steps of the mean prototype confidence on 300 training images, from the full
                 model's towards chance
    exits        after each block
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.selection import backbones, images
from benchmarks.selection.settings import log_probs
from lc_engine.backbone.early_exits import Exits
from lc_engine.backbone.families import family_of
from lc_engine.masking import Masking
from lc_engine.models.classifier import Tap
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

K = 8
PUBLISHED = tuple((0.372 ** (1 / (K - 1))) ** k for k in range(K))
BATCH = 16
CALIBRATION_ROWS = 300
EXITS = {"cnn": Exits(("2", "5", "8")), "lite0": Exits()}  # after each block
CALIBRATION_GRID = tuple(np.arange(1.0, 0.049, -0.05).round(2))


class Features:
    """Features of one backbone on one image set."""

    def __init__(self, backbone: str, image_set: str, cache: Path) -> None:
        self.folder = cache / f"{backbone}-{image_set}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.exits = EXITS[backbone]
        self.images = images.load(image_set, cache)
        self.backbone = backbones.load(backbone, cache)

    def of(self, split: str) -> np.ndarray:
        """(N, D) float32 features of the whole model on "train" or "test"."""
        return self._kept("magnitude", (1.0,), split)[0]

    @functools.cache  # noqa: B019, as there are as many of them as cases
    def along(self, name: str) -> tuple[list[np.ndarray], LearningPath]:
        """Features (N, D) of the training images under each sub-model of a path, and the path."""
        how, kind = name.split()[0], name.split()[-1]
        if how == "exits":
            blocks = self.exits.find(self.backbone.model, None)
            found = self._kept(how, range(len(blocks)), "train")
            return found, Exits.path(len(found))
        path = {
            "full": lambda: LearningPath.explicit([1.0]),
            "published": lambda: LearningPath.explicit(list(PUBLISHED)),
            "gauss": LearningPath.gauss,
            "calibrated": lambda: LearningPath.explicit(self._calibrated(kind)),
        }[how]()
        return self._kept(kind.replace("full", "magnitude"), path.capacities, "train"), path

    def _kept(self, kind: str, points: Sequence[float], split: str) -> list[np.ndarray]:
        middle = "" if kind == "magnitude" else f"{kind}-"
        files = {p: self.folder / f"{split}-{middle}{p:.4f}.npy" for p in points}
        missing = [p for p in points if not files[p].exists()]
        if missing:
            found = self._compute(getattr(self.images, split), missing, kind)
            for point, features in zip(missing, found, strict=True):
                np.save(files[point], features.astype(np.float16))
        return [np.load(file).astype(np.float32) for file in files.values()]

    def _calibrated(self, kind: str) -> list[float]:
        suffix = "" if kind == "magnitude" else f"-{kind}"
        file = self.folder / f"calibrated{suffix}.json"
        if not file.exists():
            chosen = np.random.default_rng(0).permutation(len(self.images.train))[:CALIBRATION_ROWS]
            pixels, labels = self.images.train[chosen], self.images.train_labels[chosen]
            grid = self._compute(pixels, CALIBRATION_GRID, kind)
            curve = [float(np.exp(p).mean()) for p in log_probs(grid, grid[0], labels)]
            lowest = np.minimum.accumulate(curve)  # made monotonic for the interpolation
            chance = max(lowest[-1], 1.0 / len(np.unique(labels)))
            levels = curve[0] - (curve[0] - chance) * np.arange(K) / K
            path = np.interp(levels, lowest[::-1], CALIBRATION_GRID[::-1])
            path[0] = 1.0
            file.write_text(json.dumps({"path": path.tolist(), "curve": curve}))
        return list(json.loads(file.read_text())["path"])

    def _compute(self, pixels: np.ndarray, points: Sequence[float], kind: str) -> list[np.ndarray]:
        model, prepare = self.backbone
        exits = kind == "exits"
        path = LearningPath.explicit([1.0] if exits else list(points))
        masking = self.exits if exits else Masking(kind)
        example = prepare(pixels[:BATCH])
        views = family_of(masking, Tap(model, None), path).views(example, torch.float32)
        found: list[list[np.ndarray]] = []
        with torch.inference_mode():
            for start in range(0, len(pixels), BATCH):
                batch = prepare(pixels[start : start + BATCH])
                outputs = views.features(batch, range(len(points)))
                found.append([one.numpy().copy() for one in outputs])
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]
