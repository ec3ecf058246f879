"""Time a language model on a device: the engine against batched, sorted loops of `transformers`.

    python -m benchmarks.gpu.language --data FOLDER --rows 2000 --csv language.csv

FOLDER is what `benchmarks.gpu.prepare` wrote. All ways score the mean NLL of the responses under K
magnitude masks per layer, in bfloat16. The loops get tokens and thresholds before the clock starts,
which favours them; they sort rows by length, pad batches of 32 to the longest row, and compute all
logits. The engine's time includes tokenizing and finding the thresholds.

The status is 1 if the engine differs from the loop in bfloat16, or on the first rows in float32; 2
without a device.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import lc_engine as lc
from benchmarks.gpu.device import chosen_device
from benchmarks.gpu.prepare import conversation_rows, language_model
from benchmarks.gpu.ways import time_ways
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.masking import Masking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lc_engine.language.tokens import Tokens
    from lc_engine.path.learning_path import LearningPath

# Rows on which float32 is compared, and how much lc may differ there.
CHECKED, TOLERANCE = 24, 1e-4
# The same in bfloat16, in nats: of the logarithm of lc. Ranks are no check: under weights that are
# not trained, rows differ little.
TOLERANCE_BFLOAT16 = 0.05
LOOP = "loop, bfloat16, sorted"
BATCH = 32


class SortedLoop:
    """Batches of rows of similar length, padded, with all logits; a forward per sub-model.

    Args:
        model: a Llama on its device; its weights are masked in place and restored.
        path: the capacities.
        rows: tokens of the rows.
        forward: runs the model, or a compiled version of it.
    """

    def __init__(
        self,
        model: nn.Module,
        path: LearningPath,
        rows: Sequence[Tokens],
        forward: Callable[..., Any] | None = None,
    ) -> None:
        self._forward = model if forward is None else forward
        self._path, self._count = path, len(rows)
        self._weights = [
            module.weight.detach()
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name != "lm_head"
        ]
        self._whole = [weight.clone() for weight in self._weights]
        self._bounds = [_bounds(weight, path) for weight in self._weights]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
        device = self._weights[0].device
        self._batches = [
            (order[i : i + BATCH], *_padded([rows[j] for j in order[i : i + BATCH]], device))
            for i in range(0, len(order), BATCH)
        ]

    def lc(self) -> np.ndarray:
        """Return lc (N,) over the path."""
        total = torch.zeros(self._count, dtype=torch.float64)
        for k, omega in enumerate(self._path.weights):
            for weight, whole, bounds in zip(self._weights, self._whole, self._bounds, strict=True):
                weight.copy_(torch.where(whole.abs().float() >= bounds[k], whole, 0))
            with torch.inference_mode():
                means = [(rows, self._nll(*batch)) for rows, *batch in self._batches]
            for rows, nll in means:
                total[rows] += omega * (-nll.double().cpu()).exp()
        for weight, whole in zip(self._weights, self._whole, strict=True):
            weight.copy_(whole)
        return total.numpy()

    def _nll(self, ids: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
        """Return the mean NLL (B,) of the targets, which are −100 elsewhere."""
        logits = self._forward(input_ids=ids, attention_mask=mask, use_cache=False).logits
        flat = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten(), reduction="none"
        )
        counts = (targets[:, 1:] != -100).sum(1)
        return flat.view(len(ids), -1).sum(1) / counts


def _bounds(weight: Tensor, path: LearningPath) -> list[Tensor]:
    """Return, per capacity, the least |w| that stays, on the device."""
    ordered = weight.abs().float().flatten().sort(descending=True).values
    return [ordered[count - 1] for count in path.keep_counts(weight.numel())]


def _padded(rows: Sequence[Tokens], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids, attention mask and targets (B, T)."""
    longest = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), longest), np.int64)
    mask, targets = np.zeros_like(ids), np.full_like(ids, -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)], mask[i, : len(row.ids)] = row.ids, 1
        targets[i, : len(row.ids)] = np.where(row.response, row.ids, -100)
    found = [torch.from_numpy(part).to(device) for part in (ids, mask, targets)]
    return found[0], found[1], found[2]


def engine(
    model: nn.Module, tokenizer: Any, rows: list[dict[str, Any]], path: LearningPath
) -> np.ndarray:
    scorer = CausalLMScorer(
        model, tokenizer, path=path, masking=Masking(scope="layer"), whole_model=False
    )
    return lc.score(scorer, rows, progress=False).column("lc")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true", help="on the CPU")
    asked = parser.parse_args()
    device = chosen_device(rehearse=asked.rehearse)
    if device is None:
        return 2
    path = lc.LearningPath.gauss(asked.points, 0.7, 1.0)
    rows = conversation_rows(asked.data, asked.rows)
    model, tokenizer = language_model(asked.data, torch.bfloat16)
    model = model.to(device)
    source = CausalLMScorer(model, tokenizer, path=path).transform.open_source(rows)
    (batch,) = source.batches(len(rows))
    tokens = batch.inputs
    if len(tokens) != len(rows):
        raise SystemExit(f"{len(rows) - len(tokens)} of the rows have no response")
    wrong = check_float32(asked.data, rows[:CHECKED], path, device)
    backend = "eager" if asked.rehearse else "inductor"
    plain = SortedLoop(model, path, tokens)
    ways: dict[str, Callable[[], np.ndarray]] = {
        LOOP: plain.lc,
        "lc_engine, bfloat16": partial(engine, model, tokenizer, rows, path),
        "loop, bfloat16, sorted, torch.compile": lambda: SortedLoop(
            model, path, tokens, torch.compile(model, dynamic=True, backend=backend)
        ).lc(),
    }
    SortedLoop(model, lc.LearningPath.explicit([0.9]), tokens[:BATCH]).lc()  # loads libraries
    count = sum(len(row.ids) for row in tokens)
    described = {"rows": len(rows), "tokens": count, "points": len(path)}
    found = time_ways(ways, described, _nats, TOLERANCE_BFLOAT16, device, asked.csv)
    wrong += [f"language, in nats: {fault}" for fault in found]
    print(*wrong, sep="\n")
    return 1 if wrong else 0


def _nats(found: np.ndarray, base: np.ndarray) -> float:
    return float(np.abs(np.log(found / base)).max())


def check_float32(
    folder: Path, rows: list[dict[str, Any]], path: LearningPath, device: torch.device
) -> list[str]:
    """Return what is wrong with the engine in float32 on a few rows."""
    model, tokenizer = language_model(folder, torch.float32)
    model = model.to(device)
    source = CausalLMScorer(model, tokenizer, path=path).transform.open_source(rows)
    (batch,) = source.batches(len(rows))
    ours = engine(model, tokenizer, rows, path)
    difference = float(np.abs(ours - SortedLoop(model, path, batch.inputs).lc()).max())
    return [] if difference <= TOLERANCE else [f"language, float32: lc differs by {difference:.1e}"]


if __name__ == "__main__":
    sys.exit(main())
