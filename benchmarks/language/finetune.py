"""Fine-tuning SmolLM2-135M on subsets of real conversations: LoRA, the same steps for each.

    python -m benchmarks.language.finetune --json OUT [--steps 40]

One split into conversations to learn from and held-out ones. The learning complexity of the former
chooses the easiest tenth and FlexRand's tenth; random tenths and everything stand beside them. The
answer's perplexity on the held-out conversations is reported as it comes out after the last step.
Settings fixed beforehand.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import peft
import torch
from torch import nn

import lc_engine as lc
from lc_engine.bench.language_data import conversations, smollm2
from lc_engine.language.model import LanguageModelSpec

HELD_OUT, KEEP, SEEDS = 150, 0.1, 3
BATCH, RATE, WARM_UP = 8, 5e-4, 5
LORA = {
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "task_type": "CAUSAL_LM",
}


def subsets(table: lc.ScoreTable) -> dict[str, np.ndarray]:
    random = {
        f"random, seed {seed}": lc.select(table, KEEP, "random", seed=seed) for seed in range(SEEDS)
    }
    return {
        "easiest": lc.select(table, KEEP, "easy"),
        "FlexRand, gamma 0.5": lc.select(table, KEEP, gamma=0.5, seed=0),
        **random,
        "everything": np.arange(len(table)),
    }


def padded(rows: list) -> dict[str, torch.Tensor]:
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    labels = torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.from_numpy(row.ids)
        labels[i, : len(row.ids)][row.response] = torch.from_numpy(row.ids[row.response])
    return {"input_ids": ids, "labels": labels}


def train(model: nn.Module, rows: list, steps: int, seed: int) -> None:
    """Train the adapter in place; every subset sees as many steps of as many rows."""
    generator = np.random.default_rng(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / WARM_UP) * (1 - step / steps)
    )
    model.train()
    order: list[int] = []
    for _ in range(steps):
        while len(order) < BATCH:
            order += generator.permutation(len(rows)).tolist()
        batch, order = order[:BATCH], order[BATCH:]
        model(**padded([rows[i] for i in batch])).loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    model.eval()


@torch.inference_mode()
def perplexity(model: nn.Module, rows: list) -> float:
    """Return exp of the mean NLL over all response tokens."""
    nll, count = 0.0, 0
    for i in range(0, len(rows), 16):
        part = padded(rows[i : i + 16])
        tokens = int((part["labels"][:, 1:] >= 0).sum())
        nll += float(model(**part).loss) * tokens
        count += tokens
    return float(np.exp(nll / count))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, required=True, help="one line per subset")
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    every = conversations()
    order = np.random.default_rng(0).permutation(len(every))
    pool = [every[i] for i in np.sort(order[HELD_OUT:])]
    folder = str(smollm2())
    scorer = lc.Scorer.for_causal_lm(folder, path=lc.LearningPath.gauss(3, 0.7, 1.0))
    began = time.perf_counter()
    table = lc.score(scorer, pool)
    print(f"scored {len(pool)} rows in {time.perf_counter() - began:.0f} s", flush=True)
    held, learn = (
        next(scorer.transform.open_source(rows).batches(len(rows))).inputs
        for rows in ([every[i] for i in np.sort(order[:HELD_OUT])], pool)
    )
    held.sort(key=lambda row: len(row.ids))
    model, _ = LanguageModelSpec(folder).load()  # in the dtype that is fast here
    results = {"none": {"rows": 0, "perplexity": perplexity(model, held)}}
    adapted = peft.get_peft_model(model, peft.LoraConfig(**LORA))
    for number, (name, rows) in enumerate(subsets(table).items()):
        adapter = f"subset{number}"
        torch.manual_seed(0)
        adapted.add_adapter(adapter, peft.LoraConfig(**LORA))
        adapted.set_adapter(adapter)
        train(adapted, [learn[i] for i in rows], asked.steps, seed=0)
        results[name] = {"rows": len(rows), "perplexity": perplexity(adapted, held)}
        print(name, results[name], flush=True)
        asked.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
