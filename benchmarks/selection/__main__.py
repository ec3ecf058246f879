"""The evidence of docs/selection.md: every strategy, real fine-tuning, and paths of sub-models.

    python -m benchmarks.selection --cache DIR             # continues where it stopped
    python -m benchmarks.selection --cache DIR --held-out  # other seeds, no test image is read

Nothing is tuned on test images: strategies run with the library's defaults, "auto" reads training
rows alone, and a test set is judged on once per strategy, seed, budget and draw. `--held-out`
judges on the training rows that a seed leaves out, with other seeds. Results are appended to
DIR/evidence.jsonl or DIR/held-out.jsonl; the tables are printed at the end.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from threadpoolctl import threadpool_limits

from benchmarks.selection import blocks, paths, settings, tables
from benchmarks.selection.compare import Run, fine_tuned
from benchmarks.selection.features import Features

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS, HELD_OUT_SEEDS = range(5), range(100, 104)
PARTS = ("probe", "fine-tuning", "paths", "blocks", "held out")


def parts(*, held_out: bool) -> Iterator[dict[str, Any]]:
    """Yield what is to be done: a part of the evidence, and on what."""
    for seed in HELD_OUT_SEEDS if held_out else SEEDS:
        for variant in settings.VARIANTS:
            for images in settings.IMAGES:
                on = {"backbone": "lite0", "images": images, "variant": variant, "seed": seed}
                yield {"part": "held out" if held_out else "probe"} | on
            if not held_out:
                on = {"backbone": "lite0", "images": "fashion", "variant": variant, "seed": seed}
                yield {"part": "fine-tuning"} | on
                if variant == "plain":
                    yield {"part": "blocks"} | on
                for backbone, images in paths.CASES:
                    on = {"backbone": backbone, "images": images, "variant": variant, "seed": seed}
                    yield {"part": "paths"} | on


def rows(part: dict[str, Any], cache: Path) -> Iterator[dict[str, Any]]:
    source = _source(part["backbone"], part["images"], cache)
    if part["part"] == "blocks":
        return blocks.rows(source, part["seed"])
    if part["part"] == "paths":
        return paths.rows(source, part["backbone"], part["images"], part["variant"], part["seed"])
    run = Run(source, part["variant"], part["seed"], held_out=part["part"] == "held out")
    return fine_tuned(run, source) if part["part"] == "fine-tuning" else run.rows()


@functools.cache
def _source(backbone: str, images: str, cache: Path) -> Features:
    return Features(backbone, images, cache)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--parts", nargs="+", default=PARTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = options.cache / ("held-out.jsonl" if options.held_out else "evidence.jsonl")
    file.touch()
    found = [json.loads(line) for line in file.read_text().splitlines()]
    done = {json.dumps(row["of"]) for row in found}
    with threadpool_limits(1):
        for part in parts(held_out=options.held_out):
            if part["part"] in options.parts and json.dumps(part) not in done:
                print(*part.values(), flush=True)
                new = [{"of": part} | row for row in rows(part, options.cache)]
                with file.open("a") as out:
                    out.writelines(json.dumps(row) + "\n" for row in new)
                found += new
    print(tables.text(found))


if __name__ == "__main__":
    main()
