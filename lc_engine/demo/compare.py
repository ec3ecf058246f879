"""The engine against the naive ways: the same samples and sub-models, in turns, in one process."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lc_engine import naive
from lc_engine.masking import Masking
from lc_engine.scorer.scorer import Scorer
from lc_engine.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    from lc_engine.data.batch import Source
    from lc_engine.demo.settings import Settings
    from lc_engine.path.learning_path import LearningPath


@dataclass(frozen=True)
class Comparison:
    """Seconds that each way took for the same scores.

    Attributes:
        samples: N.
        sub_models: K.
        seconds: by way, "engine" among them; the median over the rounds.
        difference: largest |lc − lc of the engine| of any way and sample.
    """

    samples: int
    sub_models: int
    seconds: dict[str, float]
    difference: float

    def times_faster(self, way: str) -> float:
        """Return how many times as long as the engine a way took."""
        return self.seconds[way] / self.seconds["engine"]


@dataclass(frozen=True)
class DensePath:
    """A path of few nodes beside the many even steps that it stands in for.

    Attributes:
        samples: N.
        sub_models: K of the even path.
        seconds: that the released way took for it, once.
        correlation: Spearman's, between the engine's lc on the few nodes and its lc.
    """

    samples: int
    sub_models: int
    seconds: float
    correlation: float


def prototype_scorer(model: nn.Module, settings: Settings) -> Scorer:
    """Make the demo's scorer: cosine prototypes behind masked convolutions."""
    return Scorer(model, path=settings.path, logit="cosine", temperature=settings.temperature)


def compare_bodies(
    model: nn.Module, source: Source, settings: Settings
) -> tuple[Comparison, DensePath]:
    """Score pictures with every convolution masked: by the engine, the loop and the released way.

    Every way starts from the files: reading, decoding, prototypes and thresholds are in its time.
    """
    extractor = naive.feature_extractor(model)

    def read() -> Iterator[tuple[Tensor, Tensor]]:
        return ((batch.inputs, batch.labels) for batch in source.batches(settings.batch_size))

    def engine() -> Tensor:
        scorer = prototype_scorer(model, settings)
        table = score(scorer, source, batch_size=settings.batch_size, progress=False)
        return torch.tensor(table.column("lc"))

    def loop() -> Tensor:
        return naive.prototype_loop(
            extractor, read, settings.path, naive.cosine, settings.temperature
        ).lc

    def released(path: LearningPath) -> Tensor:
        return naive.released_way(extractor, read, path, naive.cosine, settings.temperature).lc

    ways = {"engine": engine, "loop": loop, "released": lambda: released(settings.path)}
    found, comparison = _in_turns(ways, settings.path, settings.rounds)
    began = time.perf_counter()
    dense = released(settings.dense_path)
    seconds = time.perf_counter() - began
    correlation = _spearman(found["engine"].numpy(), dense.numpy())
    return comparison, DensePath(len(dense), len(settings.dense_path), seconds, correlation)


def compare_heads(
    head: torch.nn.Linear, features: Tensor, labels: Tensor, settings: Settings
) -> Comparison:
    """Score features with a linear head masked: by the fused operator, and by the loop."""
    masking, path = Masking(weights="head"), settings.head_path

    def engine() -> Tensor:
        return (
            Scorer(head, head="linear", path=path, masking=masking)
            .score_batch((features, labels))
            .lc
        )

    def loop() -> Tensor:
        return naive.linear_loop(features, labels, head, path).lc

    return _in_turns({"engine": engine, "loop": loop}, path, settings.rounds)[1]


def _in_turns(
    ways: Mapping[str, Callable[[], Tensor]], path: LearningPath, rounds: int
) -> tuple[dict[str, Tensor], Comparison]:
    """Run every way once per round; each round begins with another one."""
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    found: dict[str, Tensor] = {}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            found[name] = ways[name]()
            seconds[name].append(time.perf_counter() - began)
    own = found["engine"]
    return found, Comparison(
        samples=len(own),
        sub_models=len(path),
        seconds={name: statistics.median(times) for name, times in seconds.items()},
        difference=max(float((lc - own).abs().max()) for lc in found.values()),
    )


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlate the ranks of two score columns (no ties to speak of)."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])
