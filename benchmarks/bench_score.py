"""The whole job against the naive ways, on EfficientNet-Lite0 and real digits.

pytest benchmarks/bench_score.py

Every way starts from the image files (or, for the heads, from the features), and its scores are
compared with the engine's before it is timed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import lc_engine as lc
from lc_engine import naive
from lc_engine.data.open import open_source
from lc_engine.demo import digits
from lc_engine.demo.training import Features, train_probe
from lc_engine.models.load import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture
    from torch import Tensor

    from lc_engine.data.batch import Source

SIDE, PER_DIGIT, BATCH = 64, 13, 32
# Where this model learns something of digits: see lc_engine.demo.settings.
PATH = lc.LearningPath.gauss(8, 0.5, 1.0)
HEAD_PATH = lc.LearningPath.geometric(50)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return ModelSpec("efficientnet-lite0").load().model


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("digits")
    digits.write_folders(root, PER_DIGIT, 0, seed=0)
    transform = ModelSpec("efficientnet-lite0", image_size=SIDE).load().transform
    return open_source(root / "train", transform=transform)


@pytest.fixture(scope="module")
def images(model: nn.Module, source: Source) -> dict[str, Callable[[], Tensor]]:
    extractor = naive.feature_extractor(model)

    def read():
        return ((batch.inputs, batch.labels) for batch in source.batches(BATCH))

    return {
        "engine": lambda: torch.tensor(
            lc.score(lc.Scorer(model, path=PATH), source, batch_size=BATCH).column("lc")
        ),
        "naive loop": lambda: naive.prototype_loop(extractor, read, PATH).lc,
        "released way": lambda: naive.released_way(extractor, read, PATH).lc,
    }


@pytest.fixture(scope="module")
def expected(images: dict[str, Callable[[], Tensor]]) -> Tensor:
    return images["engine"]()


@pytest.mark.parametrize("way", ["engine", "naive loop", "released way"])
def test_images(
    benchmark: BenchmarkFixture,
    images: dict[str, Callable[[], Tensor]],
    expected: Tensor,
    way: str,
) -> None:
    """130 digits, 8 sub-models, every convolution masked."""
    benchmark.group = "images, convolutions masked"
    torch.testing.assert_close(images[way](), expected, atol=1e-5, rtol=0)
    benchmark.pedantic(images[way], rounds=3)


@pytest.fixture(scope="module")
def features(model: nn.Module, source: Source) -> Features:
    """Real features, repeated to 2,080 rows."""
    found = Features.of(model, source, BATCH)
    return Features(found.values.repeat(16, 1), found.labels.repeat(16))


@pytest.mark.parametrize("way", ["engine", "naive loop"])
@pytest.mark.parametrize("classes", [10, 1000])
def test_heads(
    benchmark: BenchmarkFixture, model: nn.Module, features: Features, classes: int, way: str
) -> None:
    """50 sub-models of a linear head: a probe of the digits, and the model's own of ImageNet."""
    benchmark.group = f"features, head of {classes} classes masked"
    head = train_probe(*features, classes=10, steps=100, seed=0)
    if classes == 1000:
        head = model.get_classifier()
    masking = lc.Masking(weights="head")

    def engine() -> Tensor:
        scorer = lc.Scorer(head, head="linear", path=HEAD_PATH, masking=masking)
        return scorer.score_batch(tuple(features)).lc

    def loop() -> Tensor:
        return naive.linear_loop(*features, head, HEAD_PATH).lc

    run = {"engine": engine, "naive loop": loop}[way]
    torch.testing.assert_close(run(), engine(), atol=1e-5, rtol=0)
    benchmark.pedantic(run, rounds=5)
