"""Ways to score instruction rows with the sub-models of a causal language model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lc_engine.bench.machine import Work
from lc_engine.bench.parity import ROUNDED
from lc_engine.bench.ways import (
    BFLOAT16,
    COMPILED,
    ENGINE,
    ENGINE_BFLOAT16,
    NAIVE,
    Job,
    Way,
    scored,
)
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from lc_engine.data.batch import Source
    from lc_engine.language.tokens import Tokens
    from lc_engine.path.learning_path import LearningPath

    Run = Callable[[Source, LearningPath], np.ndarray]

# Rows that are tokenized at a time.
_READ_ROWS = 256


def language_job(
    title: str, model: nn.Module, tokenizer: Any, source: Source, path: LearningPath
) -> Job:
    """Compare ways to score responses with the linear layers of a language model masked, each.

    The loop is a user's: a row at a time, all logits, `log_softmax`, a forward per sub-model.

    Args:
        title: of the table.
        model: a causal language model of `transformers`, in float32; it is not changed.
        tokenizer: its own.
        source: the rows.
        path: the sub-models.
    """
    rounded = copy.deepcopy(model).bfloat16()
    compiled = copy.deepcopy(model)
    compiled_forward: Callable[..., Any] = torch.compile(compiled, dynamic=True)

    def engine(own: nn.Module) -> Run:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            scorer = CausalLMScorer(own, tokenizer, path=path, whole_model=False)
            return scored(score(scorer, rows, progress=False))

        return run

    def loop(live: nn.Module, forward: Callable[..., Any]) -> Run:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            return _loop(model, live, forward, rows, path)

        return run

    plain = copy.deepcopy(model)
    tokens = sum(len(row.ids) for row in _read(source))
    numel = sum(layer.weight.numel() for layer in _layers(model).values())
    return Job(
        title=title,
        source=source,
        path=path,
        ways=(
            Way(NAIVE, loop(plain, plain)),
            Way(COMPILED, loop(compiled, compiled_forward), optional=True),
            Way(BFLOAT16, loop(rounded, rounded), ROUNDED),
            Way(ENGINE, engine(model)),
            Way(ENGINE_BFLOAT16, engine(copy.deepcopy(model).bfloat16()), ROUNDED),
        ),
        passes=1,
        forwards=0,
        work=Work(flops=2 * numel * tokens, bytes=4 * numel),
    )


def _layers(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}


def _read(source: Source) -> Iterable[Tokens]:
    for batch in source.batches(_READ_ROWS):
        yield from batch.inputs


def _loop(
    whole: nn.Module,
    live: nn.Module,
    forward: Callable[..., Any],
    source: Source,
    path: LearningPath,
) -> np.ndarray:
    """Mask the weights of `whole` into `live` for each capacity, and score row by row."""
    head = whole.get_output_embeddings()  # type: ignore[operator]
    layers = {name: part for name, part in _layers(whole).items() if part is not head}
    targets = {name: part.weight for name, part in _layers(live).items() if name in layers}
    rows = list(_read(source))
    lc = np.zeros(len(rows))
    with torch.no_grad():
        for k, omega in enumerate(path.weights):
            for name, layer in layers.items():
                targets[name].copy_(_masked(layer.weight, path, k))
            lc += omega * np.array([_confidence(forward, row) for row in rows])
        for name, layer in layers.items():
            targets[name].copy_(layer.weight)
    return lc


def _masked(weight: Tensor, path: LearningPath, k: int) -> Tensor:
    count = path.keep_counts(weight.numel())[k]
    size = weight.abs()
    threshold = size.flatten().kthvalue(weight.numel() - count + 1).values if count else torch.inf
    return torch.where(size >= threshold, weight, 0)


def _confidence(forward: Callable[..., Any], row: Tokens) -> float:
    """Return exp(−mean NLL) of the response of one row."""
    ids, response = torch.from_numpy(np.asarray(row.ids)).long(), np.asarray(row.response)
    logits = forward(input_ids=ids[None], use_cache=False).logits[0].float()
    log_p = torch.log_softmax(logits[:-1], dim=-1).gather(-1, ids[1:, None])[:, 0].double()
    return float(log_p[torch.from_numpy(response[1:]).bool()].mean().exp())
