"""Time a whole network on a device: the engine against loops over K masked copies.

    python -m benchmarks.gpu.backbone --data FOLDER --model resnet18 --rows 2048 --csv resnet18.csv

FOLDER is what `benchmarks.gpu.prepare` wrote. Images are decoded before the clock starts, into the
host's memory for the engine and the device's for the loops, which favours the loops. The engine's
time includes its preparation: hashing the images, copying weights, folding batch norms, compiling,
capturing the graph. It runs eagerly and compiled; which of both it takes by itself depends on rows
times sub-models (`tuning.COMPILED_FORWARDS`). Compiling is part of every time.

`spearman` and `difference` compare the loss with that of the bfloat16 loop. The status is 1 if the
engine differs from the loop in bfloat16, or on the first rows in float32; 2 without a device.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import torch
from torch.utils.data import TensorDataset

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, model
from benchmarks.gpu.device import chosen_device
from benchmarks.gpu.prepare import decoded
from benchmarks.gpu.ways import time_ways
from lc_engine import naive
from lc_engine.backbone import compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

# Rows on which float32 is compared, and how much the loss may differ there: K sums of rounded logs.
CHECKED, TOLERANCE = 256, 1e-3
# The same in bfloat16, of two ways whose activations are rounded at other places. Ranks are no
# check: under weights that are not trained, losses differ little between rows.
TOLERANCE_BFLOAT16 = 0.05
LOOP = "loop, bfloat16"


def plain_loop(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]], path: lc.LearningPath
) -> np.ndarray:
    extractor = naive.feature_extractor(network)
    return naive.prototype_loop(extractor, lambda: batches, path).loss.cpu().numpy()


def bfloat16_loop(
    network: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    path: lc.LearningPath,
    backend: str | None = None,
) -> np.ndarray:
    """Score with the settings that make a loop fastest: autocast, channels last.

    Args:
        network: the model, on the device.
        batches: images and labels there.
        path: the capacities.
        backend: of torch.compile; None runs eagerly.
    """
    extractor = naive.feature_extractor(network).to(memory_format=torch.channels_last)
    device = next(network.parameters()).device
    forward = extractor
    if backend is not None:
        forward = torch.compile(extractor.requires_grad_(False), backend=backend, dynamic=False)

    def features(given: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        found = []
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            for x, _ in given:
                found.append(forward(x.contiguous(memory_format=torch.channels_last)).float())
        return torch.cat(found)

    return naive.masked_passes(extractor, features, lambda: batches, path).loss.cpu().numpy()


def engine(
    network: nn.Module,
    data: TensorDataset,
    path: lc.LearningPath,
    dtype: str,
    batch: int,
    *,
    backend: str | None = None,
) -> np.ndarray:
    """Score with a new scorer, compiled by `backend` whatever the number of rows, or eagerly."""
    scorer = lc.Scorer(network, path=path, dtype=dtype)
    with (
        mock.patch.object(compiled, "pays", return_value=backend is not None),
        mock.patch.object(compiled, "BACKEND", backend),
    ):
        return lc.score(scorer, data, batch_size=batch).column("loss")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true", help="on the CPU")
    asked = parser.parse_args()
    device = chosen_device(rehearse=asked.rehearse)
    if device is None:
        return 2
    path = lc.LearningPath.geometric(asked.points, 0.02)
    network = model(asked.model, None, asked.side).to(device)
    data = TensorDataset(*decoded(asked.data, asked.rows, asked.side))
    batches = [
        (data.tensors[0][i : i + asked.batch].to(device), data.tensors[1][i : i + asked.batch])
        for i in range(0, asked.rows, asked.batch)
    ]
    batches = [(x, y.to(device)) for x, y in batches]
    backend = "eager" if asked.rehearse else "inductor"
    ways: dict[str, Callable[[], np.ndarray]] = {
        LOOP: partial(bfloat16_loop, network, batches, path),
        "loop, bfloat16, torch.compile": partial(bfloat16_loop, network, batches, path, backend),
        "lc_engine, bfloat16": partial(engine, network, data, path, "bfloat16", asked.batch),
        "lc_engine, bfloat16, compiled": partial(
            engine, network, data, path, "bfloat16", asked.batch, backend=backend
        ),
    }
    wrong = check_float32(network, data, asked.batch, path)
    bfloat16_loop(network, batches[:1], path)  # loads libraries, which choose their kernels
    described = {"model": asked.model, "rows": asked.rows, "points": asked.points}
    found = time_ways(ways, described, _difference, TOLERANCE_BFLOAT16, device, asked.csv)
    wrong += [f"{asked.model}, {fault}" for fault in found]
    print(*wrong, sep="\n")
    return 1 if wrong else 0


def _difference(found: np.ndarray, base: np.ndarray) -> float:
    return float(np.abs(found - base).max())


def check_float32(
    network: nn.Module, data: TensorDataset, batch: int, path: lc.LearningPath
) -> list[str]:
    """Return what is wrong with the engine in float32 on the first rows."""
    few = TensorDataset(*(part[:CHECKED] for part in data.tensors))
    device = next(network.parameters()).device
    x, y = (part.to(device) for part in few.tensors)
    batches = list(zip(x.split(batch), y.split(batch), strict=True))
    with torch.backends.cudnn.flags(allow_tf32=False):
        ours = engine(network, few, path, "float32", batch)
        difference = float(np.abs(ours - plain_loop(network, batches, path)).max())
    if difference <= TOLERANCE:
        return []
    return [f"float32 differs from the loop by {difference:.1e}"]


if __name__ == "__main__":
    sys.exit(main())
