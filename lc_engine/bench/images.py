"""Ways to score images with class prototypes behind a masked backbone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from lc_engine import naive
from lc_engine.bench.machine import Work
from lc_engine.bench.parity import ROUNDED
from lc_engine.bench.rounded import rounded, rounded_features, twin_of
from lc_engine.bench.ways import (
    BFLOAT16,
    ENGINE,
    ENGINE_BFLOAT16,
    FROZEN,
    NAIVE,
    RELEASED,
    Job,
    Way,
    pairs,
    scored,
)
from lc_engine.scorer.scorer import Scorer
from lc_engine.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Literal

    import numpy as np
    from torch import Tensor, nn

    from lc_engine.backbone.dtypes import Precision
    from lc_engine.data.batch import Source
    from lc_engine.naive import Features
    from lc_engine.path.learning_path import LearningPath

    Metric = Literal["inverse_distance", "cosine"]

# Compiling takes 10 to 60 seconds for each.
_MOST_COMPILED = 16
_SIMILARITIES = {"inverse_distance": naive.inverse_distance, "cosine": naive.cosine}


def image_job(
    title: str,
    model: nn.Module,
    source: Source,
    path: LearningPath,
    batch_size: int,
    logit: Metric = "inverse_distance",
    temperature: float = 1.0,
) -> Job:
    """Compare ways to score images with all convolutions and linear layers of a body masked.

    Args:
        title: of the table.
        model: a backbone with a classifier; it is not changed.
        source: the images.
        path: the sub-models.
        batch_size: images that go through the model at a time.
        logit: of the prototypes.
        temperature: of the prototypes.

    Raises:
        ValueError: no row can be read.
    """
    extractor = naive.feature_extractor(model)
    similarity = _SIMILARITIES[logit]

    def reader(rows: Source) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
        return lambda: pairs(rows, batch_size)

    def loop(own: nn.Module, features: Features) -> Callable[[Source, LearningPath], np.ndarray]:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            found = naive.masked_passes(own, features, reader(rows), path, similarity, temperature)
            return found.lc.double().numpy()

        return run

    def plain(rows: Source, path: LearningPath) -> np.ndarray:
        found = naive.prototype_loop(extractor, reader(rows), path, similarity, temperature)
        return found.lc.double().numpy()

    def released(rows: Source, path: LearningPath) -> np.ndarray:
        found = naive.released_way(extractor, reader(rows), path, similarity, temperature)
        return found.lc.double().numpy()

    def engine(dtype: Precision | None) -> Callable[[Source, LearningPath], np.ndarray]:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            scorer = Scorer(model, path=path, logit=logit, temperature=temperature, dtype=dtype)
            return scored(score(scorer, rows, batch_size=batch_size, progress=False))

        return run

    return Job(
        title=title,
        source=source,
        path=path,
        ways=(
            Way(NAIVE, plain),
            Way(RELEASED, released),
            Way(FROZEN, loop(*_frozen(extractor)), ROUNDED, optional=True),
            Way(BFLOAT16, loop(*rounded_features(extractor)), ROUNDED),
            Way(ENGINE, engine("float32")),
            Way(ENGINE_BFLOAT16, engine("bfloat16"), ROUNDED),
        ),
        passes=2,  # for the prototypes, and for the scores
        forwards=1,  # for the prototypes
        work=_work(extractor, source, batch_size),
    )


def _frozen(extractor: nn.Module) -> tuple[nn.Module, Features]:
    """Mask in float32, and run a bfloat16 copy of each sub-model, compiled with frozen weights.

    The compiler makes constants of the weights, so that each sub-model is compiled by itself: when
    it first runs, which the comparison of scores does before anything is timed.
    """
    own = copy.deepcopy(extractor)
    compiled: dict[int, Callable[[Tensor], Tensor]] = {}

    def features(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        # Sub-models are nested: no two of them keep as many weights.
        kept = sum(int(weight.count_nonzero()) for weight in own.parameters())
        if kept not in compiled:
            if len(compiled) > _MOST_COMPILED:
                raise ValueError(f"each of more than {_MOST_COMPILED} sub-models takes a compiler")
            twin = twin_of(own).requires_grad_(False)
            compiled[kept] = torch.compile(twin, dynamic=False)
        # The compiler reads the option when inputs of another shape come, too.
        with torch.no_grad(), torch._inductor.config.patch(freezing=True):
            return torch.cat([compiled[kept](rounded(x)).float() for x, _ in batches])

    return own, features


def _work(extractor: nn.Module, source: Source, batch_size: int) -> Work:
    """Count what a dense forward of all rows takes, by counting it for one row."""
    first = next(pairs(source, batch_size), None)
    if first is None:
        raise ValueError("data: no row can be read and has a label")
    row = first[0][:1]
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        extractor(row)
    weights = sum(weight.nbytes for weight in extractor.parameters())
    rows = len(source)
    return Work(
        flops=counted.get_total_flops() * rows,
        bytes=row.nbytes * rows + weights * -(-rows // batch_size),
    )
