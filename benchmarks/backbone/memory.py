"""Peak memory of scoring and of a plain forward of the same batches, each in its own process.

python -m benchmarks.backbone.memory

Both processes load the model and read the images; the engine may use one copy of the weights more.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, model, transform, write_images
from lc_engine.data.readers.images import ImageFolderSource
from lc_engine.scoring.score import BATCH_ROWS

ROWS, SIDE = 128, 224
WAYS = ("plain forward", "float32", "bfloat16", "int8")


def run(name: str, way: str, folder: Path) -> None:
    network = model(name)
    source = ImageFolderSource(folder, transform(SIDE), None)
    if way == "plain forward":
        with torch.inference_mode():
            for batch in source.batches(BATCH_ROWS):
                network(batch.inputs)
    else:
        scorer = lc.Scorer(network, path=lc.LearningPath.geometric(4, 0.02), dtype=way)
        lc.score(scorer, source, cache_bytes=0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3)
    one = parser.parse_args().one
    if one:
        run(one[0], one[1], Path(one[2]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_images(Path(scratch), ROWS)
        for name in MODELS:
            weights = sum(p.numel() * 4 for p in model(name).parameters()) / 2**20
            print(f"{name}: a copy of the weights is {weights:.0f} MiB")
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.backbone.memory"]
                made = subprocess.run(
                    [*command, "--one", name, way, str(folder)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                print(f"  {way}: peak {float(made.stdout):.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
