"""Growth of the engine's time with K and N, on EfficientNet-Lite0 and image files.

python -m benchmarks.backbone.growth --rounds 3

Other networks: --model, with a file of `pretrain` as --weights.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, write_images
from benchmarks.backbone.speed import engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16")
    asked = parser.parse_args()
    cases = [(64, 5), (64, 50), (256, 5), (256, 50)]
    seconds: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {n: write_images(Path(scratch) / str(n), n) for n in (64, 256)}
        for _ in range(asked.rounds):
            for rows, points in cases:
                # The same capacities, from 1 to 0.98^49, whatever their number.
                path = lc.LearningPath.geometric(points, 1 - 0.98 ** (49 / (points - 1)))
                began = time.perf_counter()
                engine(asked.model, folders[rows], path, asked.dtype, asked.weights)
                seconds[rows, points].append(time.perf_counter() - began)
    for (rows, points), times in seconds.items():
        each = statistics.median(times)
        print(f"N = {rows}, K = {points}: {each:.1f} s, {each / rows / points * 1e3:.2f} ms each")


if __name__ == "__main__":
    main()
