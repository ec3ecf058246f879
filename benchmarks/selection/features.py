"""Features of every image under every sub-model, computed once and cached on disk.

    python benchmarks/selection/features.py --cache DIR [--images fashion] [--backbone lite0]

All paths have K sub-models, so their scores cost the same:
    published    geometric, from 1.0 down to 0.372, as in the released code of arXiv 2402.05356;
    calibrated   equal steps of the mean prototype confidence, from the full model's towards
                 chance, measured on 300 training images.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import backbones
import images
import numpy as np
import torch

from lc_engine.masking import Masking
from lc_engine.path.learning_path import LearningPath
from lc_engine.submodels import Submodels

K = 8
PUBLISHED = tuple((0.372 ** (1 / (K - 1))) ** k for k in range(K))
BATCH = 16
CALIBRATION_ROWS = 300
CALIBRATION_GRID = tuple(np.arange(1.0, 0.049, -0.05).round(2))


class Features:
    """Features of one backbone on one image set, at any capacity."""

    def __init__(self, backbone: str, image_set: str, cache: Path) -> None:
        self.cache = cache / f"{backbone}-{Path(image_set).name}"
        self.cache.mkdir(parents=True, exist_ok=True)
        self._cache_root, self._backbone_name, self._image_set = cache, backbone, image_set
        self._backbone: backbones.Backbone | None = None
        self._images: images.Images | None = None

    @property
    def images(self) -> images.Images:
        if self._images is None:
            self._images = images.load(self._image_set, self._cache_root)
        return self._images

    def at(self, capacity: float, split: str = "train") -> np.ndarray:
        """(N, D) float32 features of the sub-model that keeps `capacity` of the weights."""
        file = self.cache / f"{split}-{capacity:.4f}.npy"
        if not file.exists():
            started = time.perf_counter()
            features = self.compute(getattr(self.images, split), capacity)
            np.save(file, features.astype(np.float16))
            self._note(f"{split}-{capacity:.4f}", time.perf_counter() - started)
        return np.load(file).astype(np.float32)

    def path(self, name: str) -> tuple[float, ...]:
        """The capacities of a path: "published", "calibrated" or "full" (the model alone)."""
        return {"full": lambda: (1.0,), "published": lambda: PUBLISHED}.get(
            name, self._calibrated
        )()

    def seconds(self) -> dict[str, float]:
        """Seconds that each file took to compute, decoding included."""
        file = self.cache / "seconds.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def _note(self, key: str, seconds: float) -> None:
        (self.cache / "seconds.json").write_text(json.dumps(self.seconds() | {key: seconds}))

    def _calibrated(self) -> tuple[float, ...]:
        file = self.cache / "calibrated.json"
        if not file.exists():
            started = time.perf_counter()
            chosen = np.random.default_rng(0).permutation(len(self.images.train))[:CALIBRATION_ROWS]
            pixels, labels = self.images.train[chosen], self.images.train_labels[chosen]
            full = self.compute(pixels, 1.0)
            means = np.stack([full[labels == c].mean(0) for c in np.unique(labels)])
            _, own = np.unique(labels, return_inverse=True)
            curve = [
                float(np.exp(log_prob(self.compute(pixels, r), means, own)).mean())
                for r in CALIBRATION_GRID
            ]
            lowest = np.minimum.accumulate(curve)  # made monotonic for the interpolation
            chance = max(lowest[-1], 1.0 / len(means))
            levels = curve[0] - (curve[0] - chance) * np.arange(K) / K
            path = np.interp(levels, lowest[::-1], CALIBRATION_GRID[::-1])
            path[0] = 1.0
            file.write_text(json.dumps({"path": path.tolist(), "curve": curve}))
            self._note("calibration", time.perf_counter() - started)
        return tuple(json.loads(file.read_text())["path"])

    def compute(self, pixels: np.ndarray, capacity: float) -> np.ndarray:
        if self._backbone is None:
            self._backbone = backbones.load(self._backbone_name, self._cache_root)
        model, prepare = self._backbone
        path = LearningPath.explicit([capacity])
        masking = Masking("magnitude", scope="global")
        with Submodels(model, path, masking, head=None) as submodels, torch.inference_mode():
            submodels.at(0)
            return np.concatenate(
                [
                    model(prepare(pixels[i : i + BATCH])).numpy()
                    for i in range(0, len(pixels), BATCH)
                ]
            )


def log_prob(features: np.ndarray, means: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log p(label) of softmax(1/distance to the class means): the library's default head."""
    distance = np.linalg.norm(features[:, None] - means[None], axis=2).astype(np.float64)
    logits = 1.0 / np.maximum(distance, 1e-12)
    logits -= logits.max(1, keepdims=True)
    chosen = logits[np.arange(len(labels)), labels]
    return np.asarray(chosen - np.log(np.exp(logits).sum(1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--images", nargs="+", default=["fashion", "mnist"])
    parser.add_argument("--backbone", nargs="+", default=["cnn", "lite0"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for backbone in options.backbone:
        for image_set in options.images:
            source = Features(backbone, image_set, options.cache)
            source.at(1.0, "test")
            for name in ("calibrated", "published"):
                path = source.path(name)
                print(backbone, image_set, name, [round(r, 3) for r in path], flush=True)
                for capacity in path:
                    source.at(capacity)
            print(f"{backbone} {image_set}: {sum(source.seconds().values()):.0f} s", flush=True)


if __name__ == "__main__":
    main()
