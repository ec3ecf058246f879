"""Time one pass over images per way, in turns: plain loops, a compiled network, and the engine.

python -m benchmarks.backbone.per_pass --model resnet18 --out resnet18.json

A pass is a forward of one sub-model over all images, weights masked and packed anew; the compiled
network has frozen weights, which it never exchanges. Features are compared with the plain float32
pass before anything is timed. Seconds are those of the process on all its processors (--wall: of
the clock), so that other processes matter less.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, model
from lc_engine import naive
from lc_engine._util.turns import in_turns
from lc_engine.backbone import tuning
from lc_engine.masking import Masking
from lc_engine.ops.processor import cpu_features
from lc_engine.scorer.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

POINTS = 4
PATH = lc.LearningPath.geometric(POINTS, 0.28)  # down to 37 %, as the paper's


def plain(network: torch.nn.Module, x: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    twin = copy.deepcopy(network).to(dtype)
    if dtype != torch.float32:
        twin, x = (one.to(memory_format=torch.channels_last) for one in (twin, x.to(dtype)))
    return lambda: torch.cat([twin(part) for part in x.split(16)])


def frozen(network: torch.nn.Module, x: Tensor) -> Callable[[], Tensor]:
    twin = copy.deepcopy(network).bfloat16().to(memory_format=torch.channels_last)
    run = torch.compile(twin.requires_grad_(False), dynamic=False)
    parts = x.bfloat16().contiguous(memory_format=torch.channels_last).split(16)

    def forward() -> Tensor:
        with torch._inductor.config.patch(freezing=True):
            return torch.cat([run(part) for part in parts])

    return forward


def engine(network: torch.nn.Module, x: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    copied = Prepared(network, None, Masking(), PATH).views(x, dtype)
    return lambda: copied.features(x, range(POINTS))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.manual_seed(0)
    # Smooth, as photographs are.
    x = torch.nn.functional.avg_pool2d(
        torch.randn(asked.images, 3, asked.side, asked.side), 9, 1, 4
    )
    network = naive.feature_extractor(model(asked.model, None, asked.side))
    clock = time.perf_counter if asked.wall else time.process_time
    ways: dict[str, tuple[Callable[[], Tensor], int]] = {}
    ways["plain, float32"] = plain(network, x, torch.float32), 1
    ways["plain, bfloat16, channels-last"] = plain(network, x, torch.bfloat16), 1
    ways["compiled, frozen, bfloat16"] = frozen(network, x), 1
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        name = f"engine, {str(dtype).removeprefix('torch.')}"
        ways[name] = engine(network, x, dtype), POINTS
    milliseconds: dict[str, list[float]] = {way: [] for way in ways}
    distances = {}
    with torch.inference_mode():
        wanted = ways["plain, float32"][0]()
        for way, (run, _) in ways.items():
            distances[way] = float((run().float() - wanted).norm() / wanted.norm())
            print(f"{way}: {distances[way]:.1e} from plain float32", flush=True)
        for way in in_turns(ways, asked.rounds):
            run, passes = ways[way]
            began = clock()
            run()
            milliseconds[way].append(1000 * (clock() - began) / passes / asked.images)
    found = {
        "model": asked.model,
        "processor": cpu_features()._asdict(),
        "kind": tuning.kind(),
        "threads": torch.get_num_threads(),
        "clock": clock.__name__,
        "distance from plain float32": distances,
        "milliseconds per image and pass": milliseconds,
        "medians": {way: statistics.median(times) for way, times in milliseconds.items()},
    }
    text = json.dumps(found, indent=2)
    asked.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
