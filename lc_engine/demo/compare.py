"""The engine against the naive ways: the same samples and sub-models, in turns, in one process."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lc_engine import naive
from lc_engine._util.ranks import spearman
from lc_engine._util.turns import Ratio, in_turns
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
        seconds: of each round, by way; "engine" is among them.
        difference: largest |lc − lc of the engine| of any way and sample.
    """

    samples: int
    sub_models: int
    seconds: dict[str, list[float]]
    difference: float

    def ratio(self, way: str) -> Ratio:
        """Return how many times as long as the engine a way took."""
        return Ratio.of(self.seconds[way], self.seconds["engine"])

    @property
    def samples_per_second(self) -> float:
        """The engine's, in the median round."""
        return self.samples / statistics.median(self.seconds["engine"])


@dataclass(frozen=True)
class DensePath:
    """A path of few nodes beside the many even steps that it stands in for.

    Attributes:
        samples: N.
        sub_models: K of the even path.
        correlation: Spearman's, between lc on the few nodes and lc on the even path.
    """

    samples: int
    sub_models: int
    correlation: float


def prototype_scorer(model: nn.Module, settings: Settings) -> Scorer:
    """Return the demo's scorer: cosine prototypes behind masked convolutions."""
    return Scorer(model, path=settings.path, logit="cosine", temperature=settings.temperature)


def compare_bodies(
    model: nn.Module, source: Source, settings: Settings
) -> tuple[Comparison, DensePath]:
    """Score images with every convolution masked: by the engine, the loop and the released way.

    Every way starts from the files: reading, decoding, prototypes and thresholds are in its time.
    """
    extractor = naive.feature_extractor(model)

    def read() -> Iterator[tuple[Tensor, Tensor]]:
        return ((batch.inputs, batch.labels) for batch in source.batches(settings.batch_size))

    def engine() -> Tensor:
        scorer = prototype_scorer(model, settings)
        table = score(scorer, source, batch_size=settings.batch_size, progress=False)
        return torch.tensor(table.column("lc"))

    def loop(path: LearningPath) -> Tensor:
        return naive.prototype_loop(extractor, read, path, naive.cosine, settings.temperature).lc

    def released() -> Tensor:
        return naive.released_way(
            extractor, read, settings.path, naive.cosine, settings.temperature
        ).lc

    ways = {"engine": engine, "loop": lambda: loop(settings.path), "released": released}
    found, comparison = _in_turns(ways, settings.path, settings.rounds)
    dense = loop(settings.dense_path)
    correlation = spearman(found["engine"].numpy(), dense.numpy())
    return comparison, DensePath(len(dense), len(settings.dense_path), correlation)


def compare_heads(
    head: torch.nn.Linear, features: Tensor, labels: Tensor, settings: Settings
) -> Comparison:
    """Score features with a linear head masked: by the fused operator, and by the loop."""
    masking, path = Masking(weights="head"), settings.head_path

    def engine() -> Tensor:
        scorer = Scorer(head, head="linear", path=path, masking=masking)
        return scorer.score_batch((features, labels)).lc

    def loop() -> Tensor:
        return naive.linear_loop(features, labels, head, path).lc

    engine()  # takes milliseconds, of which the first call's are others
    return _in_turns({"engine": engine, "loop": loop}, path, settings.rounds)[1]


def _in_turns(
    ways: Mapping[str, Callable[[], Tensor]], path: LearningPath, rounds: int
) -> tuple[dict[str, Tensor], Comparison]:
    """Run every way once per round; each round begins with another one."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Tensor] = {}
    for name in in_turns(ways, rounds):
        began = time.perf_counter()
        found[name] = ways[name]()
        seconds[name].append(time.perf_counter() - began)
    own = found["engine"]
    return found, Comparison(
        samples=len(own),
        sub_models=len(path),
        seconds=seconds,
        difference=max(float((lc - own).abs().max()) for lc in found.values()),
    )
