"""Ways to score features with a masked linear head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lc_engine import naive
from lc_engine.bench.machine import Work
from lc_engine.bench.parity import ROUNDED
from lc_engine.bench.ways import (
    BFLOAT16,
    COMPILED,
    ENGINE,
    NAIVE,
    RELEASED,
    Job,
    Way,
    pairs,
    scored,
)
from lc_engine.masking import Masking
from lc_engine.scorer.scorer import Scorer
from lc_engine.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from lc_engine.data.batch import Source
    from lc_engine.naive import LogProb
    from lc_engine.path.learning_path import LearningPath


def linear_job(
    title: str, head: nn.Linear, source: Source, path: LearningPath, batch_size: int
) -> Job:
    """Compare ways to score features with the weight of a linear head masked.

    Args:
        title: of the table.
        head: (C, D); it is not changed.
        source: features (N, D) and labels.
        path: the sub-models.
        batch_size: rows that are read at a time.
    """

    def loop(log_prob: LogProb) -> Callable[[Source, LearningPath], np.ndarray]:
        def run(rows: Source, path: LearningPath) -> np.ndarray:
            features, labels = map(torch.cat, zip(*pairs(rows, batch_size), strict=True))
            return naive.linear_loop(features, labels, head, path, log_prob).lc.double().numpy()

        return run

    def released(rows: Source, path: LearningPath) -> np.ndarray:
        found = naive.released_linear(lambda: pairs(rows, batch_size), head, path)
        return found.lc.double().numpy()

    def engine(rows: Source, path: LearningPath) -> np.ndarray:
        scorer = Scorer(head, head="linear", path=path, masking=Masking(weights="head"))
        return scored(score(scorer, rows, batch_size=batch_size, progress=False))

    features = len(source) * head.in_features
    compiled: LogProb = torch.compile(naive.masked_log_prob, dynamic=False)
    return Job(
        title=title,
        source=source,
        path=path,
        ways=(
            Way(NAIVE, loop(naive.masked_log_prob)),
            Way(RELEASED, released),
            Way(COMPILED, loop(compiled), optional=True),
            Way(BFLOAT16, loop(_rounded), ROUNDED),
            Way(ENGINE, engine),
        ),
        passes=1,
        forwards=0,
        work=Work(
            flops=2 * features * head.out_features,
            bytes=4 * (features + head.weight.numel()),
        ),
    )


def _rounded(
    features: Tensor, weight: Tensor, threshold: Tensor, bias: Tensor | None, labels: Tensor
) -> Tensor:
    masked = torch.where(weight.abs() >= threshold, weight, 0).bfloat16()
    bias = None if bias is None else bias.bfloat16()
    logits = nn.functional.linear(features.bfloat16(), masked, bias)
    return -nn.functional.cross_entropy(logits.float(), labels, reduction="none")
