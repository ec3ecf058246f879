"""Time networks in float32 and in bfloat16, in turns: what the rule of `dtype="auto"` rests on.

    python -m benchmarks.backbone.dtypes resnet18 mobilenetv3_small_100 --side 32

Networks of timm with random weights, 8 images; CPU seconds of a pass of two sub-models.
"""

from __future__ import annotations

import argparse
import statistics
import time

import timm
import torch

import lc_engine as lc
from lc_engine import naive
from lc_engine._util.turns import in_turns
from lc_engine.backbone.dtypes import DTYPES, auto_dtype
from lc_engine.masking import Masking
from lc_engine.scorer.prepared import Prepared

PATH = lc.LearningPath.geometric(2, 0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    # Smooth, as photographs are.
    x = torch.nn.functional.avg_pool2d(torch.randn(8, 3, asked.side, asked.side), 9, 1, 4)
    print(f'dtype="auto" is {auto_dtype(x.device)} here')
    for name in asked.models:
        torch.manual_seed(0)
        size = {"img_size": asked.side} if name.startswith(("vit_", "swin_")) else {}
        network = naive.feature_extractor(timm.create_model(name, **size).eval())
        ways = {
            dtype: Prepared(network, None, Masking(), PATH).views(x, DTYPES[dtype])
            for dtype in ("float32", "bfloat16")
        }
        seconds: dict[str, list[float]] = {dtype: [] for dtype in ways}
        with torch.inference_mode():
            for views in ways.values():
                views.features(x, range(2))
            for dtype in in_turns(ways, asked.rounds):
                began = time.process_time()
                ways[dtype].features(x, range(2))
                seconds[dtype].append(time.process_time() - began)
        ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
        print(f"{name}, {asked.side} px: bfloat16 takes {ratio:.2f} of float32's time", flush=True)


if __name__ == "__main__":
    main()
