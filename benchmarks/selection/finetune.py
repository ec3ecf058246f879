"""Real fine-tuning on the subsets: the last block of EfficientNet-Lite0 and a new classifier.

What enters the last block is computed once per image and kept in float16. Each subset then trains
by Adam for the same number of steps; batch norm keeps its statistics. The accuracy is that of the
last step, on every tenth test image.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from benchmarks.selection.backbones import last_block

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.selection.features import Features

STEPS, BATCH, RATE = 40, 32, 1e-3
TEST_STEP = 10
ENCODED = 50  # images at a time
WIDTH = 1280  # of the features


class FineTuning:
    """What all subsets of one image set share."""

    def __init__(self, source: Features) -> None:
        self.body, self.tail = last_block(source.backbone.model)
        self.prepare = source.backbone.prepare
        files = {split: source.folder / f"{split}-last-block.npy" for split in ("train", "test")}
        for split, step in (("train", 1), ("test", TEST_STEP)):
            if not files[split].exists():
                np.save(files[split], self._encode(getattr(source.images, split)[::step]))
        self.train, self.test = (torch.from_numpy(np.load(file)) for file in files.values())
        self.truth = source.images.test_labels[::TEST_STEP]

    def accuracy(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> float:
        """Mean over the classes of the test accuracy, in points, after training on pool rows."""
        torch.manual_seed(seed)
        classes = int(self.truth.max()) + 1
        model = nn.Sequential(copy.deepcopy(self.tail), nn.Linear(WIDTH, classes)).eval()
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        inputs, targets = self.train[torch.from_numpy(rows)], torch.from_numpy(labels)
        for _ in range(STEPS):
            batch = torch.randint(len(rows), (min(BATCH, len(rows)),))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch].float()), targets[batch]).backward()
            optimizer.step()
        with torch.inference_mode():
            outputs = [model(part.float()).argmax(1) for part in self.test.split(ENCODED)]
        right = torch.cat(outputs).numpy() == self.truth
        return float(100 * np.mean([right[self.truth == c].mean() for c in range(classes)]))

    @torch.inference_mode()
    def _encode(self, pixels: np.ndarray) -> np.ndarray:
        parts = range(0, len(pixels), ENCODED)
        found: list[Tensor] = [self.body(self.prepare(pixels[i : i + ENCODED])) for i in parts]
        return torch.cat(found).half().numpy()
