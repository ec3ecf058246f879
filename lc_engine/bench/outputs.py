"""Ways to score rows by what a whole model returns: under a loss, with votes, without labels."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lc_engine import naive
from lc_engine.bench.machine import Work
from lc_engine.bench.parity import ROUNDED
from lc_engine.bench.rounded import round_weights, rounded, twin_of
from lc_engine.bench.ways import (
    BFLOAT16,
    ENGINE,
    ENGINE_BFLOAT16,
    NAIVE,
    Job,
    Way,
    scored,
)
from lc_engine.data.batch import OK
from lc_engine.data.fields import Fields, collated
from lc_engine.heads.loss import Loss
from lc_engine.models.classifier import call
from lc_engine.models.pooling import first_tensor
from lc_engine.scorer.scorer import Scorer
from lc_engine.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from torch import nn

    from lc_engine.backbone.dtypes import Precision
    from lc_engine.data.batch import Source
    from lc_engine.data.fields import Inputs
    from lc_engine.path.learning_path import LearningPath

    # Outputs and targets of n rows, as one -> log p (n,).
    LogProb = Callable[[Any, Any], Tensor]
    Run = Callable[[Source, LearningPath], np.ndarray]


def output_job(
    title: str,
    model: nn.Module,
    source: Source,
    path: LearningPath,
    batch_size: int,
    head: Loss | Literal["soft", "none"],
) -> Job:
    """Compare ways to score rows with all layers of a model but its classifier masked.

    The loops read the data once and run a forward per sub-model and batch; texts are sorted by
    length and padded batch by batch.

    Args:
        title: of the table.
        model: with a classifier of its own for votes and without labels; it is not changed.
        source: the rows.
        path: the sub-models.
        batch_size: rows that go through the model at a time.
        head: a loss of the outputs; votes under the classifier; or its largest probability.

    Raises:
        ValueError: no row can be read.
    """
    log_prob = _negative(head) if isinstance(head, Loss) else _LOG_PROBS[head]
    bfloat16 = twin_of(model)

    def loop(twin: nn.Module | None) -> Run:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            own = copy.deepcopy(model).eval()
            batches, order = _read(rows, batch_size)
            if twin is not None:
                batches = [(rounded(inputs), targets) for inputs, targets in batches]

            def under_mask() -> Tensor:
                live = own if twin is None else round_weights(own, twin)
                with torch.no_grad():
                    return torch.cat([log_prob(_whole(call(live, x)), y) for x, y in batches])

            found = naive.masked_outputs(own, under_mask, path).lc.double().numpy()
            found = found[np.argsort(order)]
            return np.asarray(found[np.isfinite(found)])

        return run

    def engine(dtype: Precision) -> Run:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            if isinstance(head, Loss):
                scorer = Scorer(model, head=head, path=path, dtype=dtype)
            else:
                labels = None if head == "none" else head
                scorer = Scorer(model, head="linear", labels=labels, path=path, dtype=dtype)
            return scored(score(scorer, rows, progress=False))

        return run

    return Job(
        title=title,
        source=source,
        path=path,
        ways=(
            Way(NAIVE, loop(None)),
            Way(BFLOAT16, loop(bfloat16), ROUNDED),
            Way(ENGINE, engine("float32")),
            Way(ENGINE_BFLOAT16, engine("bfloat16"), ROUNDED),
        ),
        passes=1,
        forwards=0,
        work=_work(model, source, batch_size),
    )


def _negative(loss: Loss) -> LogProb:
    return lambda outputs, targets: -loss.fn(outputs, targets).float()


def _expected(outputs: Any, votes: Tensor | list[Tensor]) -> Tensor:
    """Return Σ_c q_c log p_c (n,), NaN for rows with another number of votes than classes."""
    log_p = first_tensor(outputs).log_softmax(1)
    if not isinstance(votes, Tensor) or votes.shape != log_p.shape:  # the engine: "bad_label"
        lost = torch.full_like(log_p[0], torch.nan)
        votes = torch.stack([one.to(lost) if len(one) == len(lost) else lost for one in votes])
    return torch.where(votes == 0, 0.0, votes.to(log_p) * log_p).sum(1)


def _largest(outputs: Any, _: None) -> Tensor:
    """Return the largest log p (n,)."""
    return first_tensor(outputs).log_softmax(1).amax(1)


_LOG_PROBS: dict[str, LogProb] = {"soft": _expected, "none": _largest}


def _whole(outputs: Any) -> Any:
    """Return outputs in float32, as a loss takes them."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, dict):  # that of `transformers` too
        for name, value in outputs.items():
            outputs[name] = _whole(value)
        return outputs
    if isinstance(outputs, list | tuple):
        return type(outputs)(map(_whole, outputs))
    return outputs


def _read(rows: Source, size: int) -> tuple[list[tuple[Inputs, Any]], np.ndarray]:
    """Return the batches of a source, with their targets, and the order of the rows in them.

    Raises:
        ValueError: no row can be read.
    """
    read = [batch for batch in rows.batches(1024) if OK in batch.status]
    if not read:
        raise ValueError("data: no row can be read")
    parts: list[Any] = [batch.inputs for batch in read]
    whole = Fields.join(parts) if isinstance(parts[0], Fields) else torch.cat(parts)
    targets = [one for batch in read for one in batch.targets or ()]
    lengths = whole.lengths if isinstance(whole, Fields) else None
    order = torch.arange(len(whole))
    if lengths is not None:
        order = lengths.argsort(descending=True, stable=True)
    batches = []
    for chosen in torch.split(order, size):
        inputs: Any = whole[chosen]
        if lengths is not None:
            inputs = inputs.cut_to(int(lengths[chosen].max()))
        own = [targets[row] for row in chosen.tolist()] if targets else None
        batches.append((inputs, None if own is None else collated(own, torch.device("cpu"))))
    return batches, order.numpy()


def _work(model: nn.Module, source: Source, batch_size: int) -> Work:
    """Count what a dense forward of all rows takes, by counting it for the rows of one batch."""
    inputs = next(_first(source, batch_size), None)
    if inputs is None:
        raise ValueError("data: no row can be read")
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        call(model, inputs)
    weights = sum(weight.nbytes for weight in model.parameters())
    rows, each = len(source), inputs.nbytes // len(inputs)
    return Work(
        flops=counted.get_total_flops() * rows // len(inputs),
        bytes=each * rows + weights * -(-rows // batch_size),
    )


def _first(source: Source, batch_size: int) -> Iterator[Inputs]:
    return (batch.inputs for batch in source.batches(batch_size) if OK in batch.status)
