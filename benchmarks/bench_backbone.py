"""Whole backbones on image files under K masked models, compared with the released code.

Both decode the same PNG files and return class-prototype scores along the same path. The released
code gets a DataLoader with as many workers as there are processors. For all 50 points and 256
images, see `benchmarks.backbone.speed`.
"""

from __future__ import annotations

import pytest
import torch

import lc_engine as lc
from benchmarks.backbone.setup import MODELS, model, released_way, transform, write_images
from lc_engine.data.readers.images import ImageFolderSource

ROWS, SIDE = 32, 224
PATHS = {
    "geometric 10": lc.LearningPath.geometric(10, 0.02),
    "5 Gauss points of 50": lc.LearningPath.geometric(50, 0.02).condensed(5),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), ROWS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("way", "path"),
    [
        ("released way", "geometric 10"),
        ("float32", "geometric 10"),
        ("auto", "geometric 10"),
        ("auto", "5 Gauss points of 50"),
    ],
)
def test_backbone(benchmark, folder, name, way, path):
    benchmark.group = f"{name}, {ROWS} images of 224 px"
    benchmark.name = f"{way}, {path}"
    if way == "released way":

        def run():
            return released_way(name, folder, SIDE, PATHS[path], torch.get_num_threads())
    else:
        scorer = lc.Scorer(model(name), path=PATHS[path], dtype=way)

        def run():
            return lc.score(scorer, ImageFolderSource(folder, transform(SIDE), 2))

    run()
    benchmark.pedantic(run, rounds=3, warmup_rounds=0)
