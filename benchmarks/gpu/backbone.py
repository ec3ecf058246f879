"""Time a whole network on a device: the engine against loops over K masked copies.

    python -m benchmarks.gpu.backbone --model resnet18 --csv resnet18.csv

Images are decoded before the clock starts, into the host's memory for the engine and the device's
for the loops, which favours the loops. The engine's time includes its preparation: copying weights,
folding batch norms, capturing the graph. `spearman` and `difference` compare the loss with that of
the float32 loop.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import stats
from torch.utils.data import DataLoader, TensorDataset

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, Files, model, write_images
from lc_engine import naive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

SIDE, BATCH = 224, 128
COLUMNS = ("model", "way", "rows", "points", "seconds", "times", "spearman", "difference", "device")


def decoded(rows: int) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, 224, 224) and labels (N,) on the host."""
    with tempfile.TemporaryDirectory() as scratch:
        files = Files(write_images(Path(scratch), rows), SIDE)
        images = [files[i] for i in range(len(files))]
    return torch.stack([x for x, _ in images]), torch.tensor([y for _, y in images])


def plain_loop(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]], path: lc.LearningPath
) -> np.ndarray:
    extractor = naive.feature_extractor(network)
    return naive.prototype_loop(extractor, lambda: batches, path).loss.cpu().numpy()


def bfloat16_loop(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]], path: lc.LearningPath
) -> np.ndarray:
    """Score with the settings that make a loop fastest: autocast, channels last."""
    extractor = naive.feature_extractor(network).to(memory_format=torch.channels_last)

    def features(given: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        found = []
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            for x, _ in given:
                found.append(extractor(x.contiguous(memory_format=torch.channels_last)).float())
        return torch.cat(found)

    return naive.masked_passes(extractor, features, lambda: batches, path).loss.cpu().numpy()


def engine(
    network: nn.Module, data: TensorDataset, path: lc.LearningPath, dtype: str
) -> np.ndarray:
    scorer = lc.Scorer(network, path=path, dtype=dtype)
    return lc.score(scorer, data, batch_size=BATCH).column("loss")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--csv", type=Path, required=True)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("this needs a CUDA or ROCm device; there is none here", file=sys.stderr)
        return 2
    path = lc.LearningPath.geometric(asked.points, 0.02)
    network = model(asked.model, None, SIDE).to("cuda")
    x, y = decoded(asked.rows)
    data = TensorDataset(x, y)
    batches = [(a.to("cuda"), b.to("cuda")) for a, b in DataLoader(data, batch_size=BATCH)]
    ways: dict[str, Callable[[], np.ndarray]] = {
        "loop, float32": partial(plain_loop, network, batches, path),
        "loop, bfloat16": partial(bfloat16_loop, network, batches, path),
        "lc_engine, float32": partial(engine, network, data, path, "float32"),
        "lc_engine, auto": partial(engine, network, data, path, "auto"),
    }
    plain_loop(network, batches[:1], path)  # loads libraries, which choose their kernels
    bfloat16_loop(network, batches[:1], path)
    losses: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    with asked.csv.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for way, run in ways.items():
            torch.cuda.synchronize()
            began = time.perf_counter()
            losses[way] = run()
            seconds[way] = time.perf_counter() - began
            base = losses["loop, float32"]
            values = (
                asked.model, way, asked.rows, asked.points, seconds[way],
                seconds["loop, float32"] / seconds[way],
                float(stats.spearmanr(losses[way], base).statistic),
                float(np.abs(losses[way] - base).max()), torch.cuda.get_device_name(),
            )  # fmt: skip
            found = dict(zip(COLUMNS, values, strict=True))
            table.writerow(found)
            print(found, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
