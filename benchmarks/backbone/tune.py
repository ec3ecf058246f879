"""Time whole runs with values of a constant of `lc_engine.backbone.tuning`, in turns.

python -m benchmarks.backbone.tune IMAGES_OF_TOKENS 8 16 64 --model vit_tiny_patch16_224

The present value is timed too. An entry of a table is named with dots, such as
`SPARSE_BELOW.vectors.winograd.bfloat16`; sparse kernels need a path with few weights (`--lowest
0.02`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.backbone.setup import MODELS, write_images
from benchmarks.backbone.speed import engine
from lc_engine import LearningPath
from lc_engine.backbone import tuning

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def table_and_key(name: str) -> tuple[MutableMapping[str, Any], str]:
    """Return where a constant lies: a dictionary and the key in it.

    Raises:
        SystemExit: there is no constant of that name.
    """
    table: Any = vars(tuning)
    *outer, key = name.split(".")
    for part in outer:
        table = table.get(part, {})
    if not isinstance(table.get(key), (int, float)):
        raise SystemExit(f"lc_engine.backbone.tuning has no number {name}")
    return table, key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("values", nargs="+")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--lowest", type=float, default=0.37, help="capacity of the path")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    table, key = table_and_key(asked.name)
    present = table[key]
    values = [present, *map(type(present), asked.values)]
    path = LearningPath.geometric(asked.points, 1 - asked.lowest ** (1 / (asked.points - 1)))
    seconds: list[list[float]] = [[] for _ in values]
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_images(Path(scratch), asked.rows)
        try:
            engine(asked.model, folder, path, asked.dtype)  # warms up
            for _ in range(asked.rounds):
                for value, times in zip(values, seconds, strict=True):
                    table[key] = value
                    began = time.perf_counter()
                    engine(asked.model, folder, path, asked.dtype)
                    times.append(time.perf_counter() - began)
        finally:
            table[key] = present
    for value, times in zip(values, seconds, strict=True):
        ratio = statistics.median(b / a for a, b in zip(seconds[0], times, strict=True))
        print(f"{asked.name} = {value}: {statistics.median(times):.2f} s, {ratio:.3f}")


if __name__ == "__main__":
    main()
