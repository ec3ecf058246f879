"""Time a job whose images come slowly, beside the decoding alone and the forwards alone.

    python -m benchmarks.overlap [--model resnet18] [--rows 256] [--side 64] [--balance 0.5 1 2]
    python -m benchmarks.overlap --forward-ms 2

MNIST digits in PNG files are decoded by one thread, which also waits for each of them, as for a
file on another machine, so long that decoding takes `balance` times as long as the forwards. A job
that does one after the other takes the sum of both, one that overlaps them the larger. The forwards
alone have the decoded images in memory. Wall times: waiting takes no processor time. With
`--forward-ms` a small model waits so long per image and forward, as for a device: a busy host then
disturbs neither part.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, Files, model, write_images
from lc_engine.data.open import open_source

if TYPE_CHECKING:
    from torch import Tensor


class Waiting(torch.nn.Module):
    """A network that waits, as for a device, so long per image."""

    seconds = 0.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds * len(x))
        return self.head(self.conv(x).relu().mean((2, 3)))


class SlowFiles(Files):
    """Images of which each is waited for."""

    seconds = 0.0

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        time.sleep(self.seconds)
        return super().__getitem__(i)


def job(data: object, network: torch.nn.Module, head: str, points: int, batch: int) -> float:
    """Score with a new scorer; return the seconds."""
    path = lc.LearningPath.geometric(points, 0.02)
    began = time.perf_counter()
    lc.score(lc.Scorer(network, head=head, path=path), data, batch_size=batch)
    return time.perf_counter() - began


def reading(data: SlowFiles, batch: int) -> float:
    """Decode all images; return the seconds."""
    began = time.perf_counter()
    for _ in open_source(data).batches(batch):
        pass
    return time.perf_counter() - began


def main() -> None:
    """Print one line per head and balance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--balance", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--forward-ms", type=float, help="wait in place of a forward")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.forward_ms is None:
        network = model(asked.model, None, asked.side)
    else:
        network = Waiting()
        network.seconds = asked.forward_ms / 1e3
    with tempfile.TemporaryDirectory() as scratch:
        data = SlowFiles(write_images(Path(scratch), asked.rows), asked.side)
        pairs = [data[i] for i in range(len(data))]
        decoded = torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])
        data.seconds = 0.0
        plain = reading(data, asked.batch)
        for head in ("linear", "prototype"):
            job(decoded, network, head, asked.points, asked.batch)  # loads what is loaded once
            for balance in asked.balance:
                forwards = job(decoded, network, head, asked.points, asked.batch)
                data.seconds = max(0.0, balance * forwards - plain) / len(data)
                decoding = reading(data, asked.batch)
                together = job(data, network, head, asked.points, asked.batch)
                print(
                    f"{head}: decoding {decoding:.2f} s, forwards {forwards:.2f} s, job "
                    f"{together:.2f} s, {together / max(decoding, forwards):.2f} x the longer, "
                    f"{together / (decoding + forwards):.2f} x the sum",
                    flush=True,
                )


if __name__ == "__main__":
    main()
