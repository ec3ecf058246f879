"""Ways to score instruction rows with the sub-models of a causal language model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from lc_engine.bench.machine import Work
from lc_engine.bench.parity import ROUNDED
from lc_engine.bench.ways import (
    COMPILED,
    ENGINE,
    ENGINE_BFLOAT16,
    NAIVE,
    Job,
    Way,
    scored,
)
from lc_engine.language.images.model import reads_images
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.language.tuning import TOKEN_BUDGET
from lc_engine.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from lc_engine.data.batch import Source
    from lc_engine.language.tokens import Tokens
    from lc_engine.path.learning_path import LearningPath

    Run = Callable[[Source, LearningPath], np.ndarray]
    Score = Callable[[Callable[..., Any], Sequence[Tokens]], np.ndarray]

BATCHED: Final = "batched bfloat16 loop"
# Rows that are tokenized at a time.
_READ_ROWS = 256
# Tokens of a batch of the batched loop, padding included: what the engine takes on a CPU too.
_BATCH_TOKENS = TOKEN_BUDGET["cpu"]


def language_job(
    title: str, model: nn.Module, tokenizer: Any, source: Source, path: LearningPath
) -> Job:
    """Compare ways to score responses with the linear layers of a language model masked, each.

    The loop is a user's: a row at a time, all logits, `log_softmax`, a forward per sub-model. The
    batched one has rows of similar length in a batch, padded, in bfloat16; rows with images run
    alone in both, through the whole model, and such models are not compiled.

    Args:
        title: of the table.
        model: a causal language model of `transformers`, or one of images and text, in float32; it
            is not changed.
        tokenizer: its own, or its processor.
        source: the rows.
        path: the sub-models.
    """
    rounded = copy.deepcopy(model).bfloat16()
    compiled = copy.deepcopy(model)
    compiled_forward: Callable[..., Any] = torch.compile(compiled, dynamic=True)
    has_images = reads_images(tokenizer)

    def engine(own: nn.Module) -> Run:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            scorer = CausalLMScorer(own, tokenizer, path=path, whole_model=False)
            return scored(score(scorer, rows, progress=False))

        return run

    def loop(live: nn.Module, forward: Callable[..., Any], confidences: Score = _each) -> Run:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            return _loop(model, live, forward, confidences, rows, path)

        return run

    plain = copy.deepcopy(model)
    tokens = sum(len(row.ids) for row in _read(source))
    head = model.get_output_embeddings()  # type: ignore[operator]
    layers = (*_layers(model).values(), head)
    numel = sum(layer.weight.numel() for layer in layers)
    compiler = Way(COMPILED, loop(compiled, compiled_forward), optional=True)
    return Job(
        title=title,
        source=source,
        path=path,
        ways=(
            Way(NAIVE, loop(plain, plain)),
            *([] if has_images else [compiler]),
            Way(BATCHED, loop(rounded, rounded, _batched), ROUNDED),
            Way(ENGINE, engine(model)),
            Way(ENGINE_BFLOAT16, engine(copy.deepcopy(model).bfloat16()), ROUNDED),
        ),
        passes=1,
        forwards=0,
        work=Work(flops=2 * numel * tokens, bytes=4 * numel),
    )


def _layers(model: Any) -> dict[str, nn.Linear]:
    """Return the linear layers of the decoder, without the vocabulary head."""
    head, decoder = model.get_output_embeddings(), model.get_decoder()
    return {
        name: part
        for name, part in decoder.named_modules()
        if isinstance(part, nn.Linear) and part is not head
    }


def _read(source: Source) -> Iterable[Tokens]:
    for batch in source.batches(_READ_ROWS):
        yield from batch.inputs


def _loop(
    whole: nn.Module,
    live: nn.Module,
    forward: Callable[..., Any],
    confidences: Score,
    source: Source,
    path: LearningPath,
) -> np.ndarray:
    """Mask the weights of `whole` into `live` for each capacity, and score the rows."""
    layers = _layers(whole)
    targets = {name: part.weight for name, part in _layers(live).items()}
    rows = [_cast(row, next(live.parameters()).dtype) for row in _read(source)]
    lc = np.zeros(len(rows))
    with torch.no_grad():
        for k, omega in enumerate(path.weights):
            for name, layer in layers.items():
                targets[name].copy_(_masked(layer.weight, path, k))
            lc += omega * confidences(forward, rows)
        for name, layer in layers.items():
            targets[name].copy_(layer.weight)
    return lc


def _cast(row: Tokens, dtype: torch.dtype) -> Tokens:
    """Return a row whose pixels are in the dtype of a model."""
    if row.inputs is None:
        return row
    cast = {n: v.to(dtype) if v.is_floating_point() else v for n, v in row.inputs.items()}
    return row._replace(inputs=cast)


def _masked(weight: Tensor, path: LearningPath, k: int) -> Tensor:
    count = path.keep_counts(weight.numel())[k]
    size = weight.abs()
    threshold = size.flatten().kthvalue(weight.numel() - count + 1).values if count else torch.inf
    return torch.where(size >= threshold, weight, 0)


def _each(forward: Callable[..., Any], rows: Sequence[Tokens]) -> np.ndarray:
    """Return exp(−mean NLL) of the response of each row, row by row."""
    return np.concatenate([_confidences(forward, [row]) for row in rows])


def _batched(forward: Callable[..., Any], rows: Sequence[Tokens]) -> np.ndarray:
    """Return the same, with rows of similar length in a batch, the longest first."""
    found = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
    for i in [i for i in order if rows[i].inputs is not None]:
        order.remove(i)
        found[i] = _confidences(forward, [rows[i]])[0]
    while order:
        some = max(1, _BATCH_TOKENS // len(rows[order[0]].ids))
        batch, order = order[:some], order[some:]
        found[batch] = _confidences(forward, [rows[i] for i in batch])
    return found


def _confidences(forward: Callable[..., Any], rows: Sequence[Tokens]) -> np.ndarray:
    """Return exp(−mean NLL) of the response of each row of one forward, padded at the end."""
    ids, response, real = (
        pad_sequence([torch.as_tensor(part) for part in parts], batch_first=True)
        for parts in (
            [row.ids for row in rows],
            [row.response for row in rows],
            [np.ones(len(row.ids), dtype=np.int64) for row in rows],
        )
    )
    more = dict(rows[0].inputs or {}) if len(rows) == 1 else {"attention_mask": real}
    logits = forward(input_ids=ids, use_cache=False, **more).logits
    counted = response[:, 1:]
    log_p = torch.log_softmax(logits[:, :-1][counted].float(), dim=-1)
    chosen = log_p.gather(-1, ids[:, 1:][counted][:, None])[:, 0].double()
    each = torch.split(chosen, counted.sum(1).tolist())
    return np.array([float(one.mean().exp()) for one in each])
