"""Ways to score texts with class prototypes behind a masked encoder."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from lc_engine import naive
from lc_engine.bench.machine import Work
from lc_engine.bench.parity import ROUNDED
from lc_engine.bench.rounded import rounded_features
from lc_engine.bench.ways import (
    BFLOAT16,
    ENGINE,
    ENGINE_BFLOAT16,
    NAIVE,
    Job,
    Way,
    pairs,
    scored,
)
from lc_engine.data.fields import Fields
from lc_engine.models.classifier import call
from lc_engine.scorer.scorer import Scorer
from lc_engine.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

    from lc_engine.backbone.dtypes import Precision
    from lc_engine.data.batch import Source
    from lc_engine.naive import Features
    from lc_engine.path.learning_path import LearningPath

# Texts of similar length that the loops pad and run together.
_TOGETHER = 64


def text_job(title: str, model: nn.Module, source: Source, path: LearningPath) -> Job:
    """Compare ways to score texts with all linear layers of an encoder masked.

    The loops are what one would write with `transformers`: rows sorted by length, batches padded to
    their longest row, a forward per sub-model and batch.

    Args:
        title: of the table.
        model: an encoder of texts, bare or with a classifier; it is not changed.
        source: the texts.
        path: the sub-models.
    """
    extractor = naive.feature_extractor(model)

    def loop(own: nn.Module, features: Features) -> Callable[[Source, LearningPath], np.ndarray]:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            batches, order = _sorted_batches(rows)
            found = naive.masked_passes(own, features, lambda: batches, path).lc.double().numpy()
            return np.asarray(found[np.argsort(order)])

        return run

    def engine(dtype: Precision) -> Callable[[Source, LearningPath], np.ndarray]:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            return scored(score(Scorer(model, path=path, dtype=dtype), rows, progress=False))

        return run

    tokens = sum(int(lengths.sum()) for lengths in _lengths(source))
    linear = [weight for weight in extractor.parameters() if weight.dim() == 2]
    return Job(
        title=title,
        source=source,
        path=path,
        ways=(
            Way(NAIVE, loop(*_plain(extractor))),
            Way(BFLOAT16, loop(*rounded_features(extractor)), ROUNDED),
            Way(ENGINE, engine("float32")),
            Way(ENGINE_BFLOAT16, engine("bfloat16"), ROUNDED),
        ),
        passes=2,  # for the prototypes, and for the scores
        forwards=1,  # for the prototypes
        work=Work(
            flops=2 * tokens * sum(weight.numel() for weight in linear),
            bytes=sum(weight.nbytes for weight in linear),
        ),
    )


def _sorted_batches(rows: Source) -> tuple[list[tuple[Tensor, Tensor]], np.ndarray]:
    """Return the rows, longest first and padded batch by batch, and their order."""
    read = list(pairs(rows, 1024))
    whole = Fields.join([inputs for inputs, _ in read])  # type: ignore[misc]
    labels = torch.cat([own for _, own in read])
    lengths = whole.lengths
    assert lengths is not None
    order = lengths.argsort(descending=True, stable=True)
    batches = []
    for chosen in torch.split(order, _TOGETHER):
        inputs = whole[chosen].cut_to(int(lengths[chosen].max()))
        batches.append((inputs, labels[chosen]))
    return batches, order.numpy()  # type: ignore[return-value]


def _lengths(source: Source) -> Iterable[Tensor]:
    for inputs, _ in pairs(source, 1024):
        assert isinstance(inputs, Fields)
        found = inputs.lengths
        assert found is not None
        yield found


def _plain(extractor: nn.Module) -> tuple[nn.Module, Features]:
    own = copy.deepcopy(extractor)

    def features(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        with torch.no_grad():
            return torch.cat([call(own, inputs) for inputs, _ in batches])

    return own, features
