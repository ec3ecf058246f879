"""Batches of images are split into parts that suit the caches, and others stay whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lc_engine as lc
from lc_engine.backbone.split_batch import split_batch
from lc_engine.scorer.prepared import Prepared


@pytest.mark.parametrize(("side", "images", "sizes"), [(224, 2, [2, 2, 1]), (448, 2, [1] * 5)])
def test_parts_hold_about_as_many_pixels(side: int, images: int, sizes: list[int]) -> None:
    x = torch.randn(5, 1, side, side)
    parts = split_batch(x, torch.bfloat16, images)
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), x.bfloat16())


def test_the_number_of_images_is_that_of_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lc_engine.backbone.tuning.IMAGES_OF_CONVOLUTIONS", 3)
    parts = split_batch(torch.zeros(4, 1, 224, 224), torch.float32)
    assert [len(part) for part in parts] == [3, 1]


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (4, 9), (4, 5, 6)])
def test_other_inputs_stay_whole(shape: tuple[int, ...]) -> None:
    (part,) = split_batch(torch.zeros(shape), torch.float32, 0)
    assert part.shape == shape


def test_integers_keep_their_dtype() -> None:
    (part,) = split_batch(torch.ones(2, 3, dtype=torch.int64), torch.bfloat16)
    assert part.dtype == torch.int64


@pytest.mark.parametrize(
    ("channels", "dtype", "images"),
    [
        (64, torch.float32, 2),  # 64 · 224² · 4 bytes are 12.25 MiB
        (64, torch.bfloat16, 5),
        (8, torch.bfloat16, 16),
        (320, torch.float32, 1),
    ],
)
def test_the_largest_map_of_a_part_fits_a_block_that_is_reused(
    channels: int, dtype: torch.dtype, images: int
) -> None:
    layers = (nn.Conv2d(3, channels, 1), nn.ReLU(), nn.AvgPool2d(32), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(channels, 2)).eval()
    views = Prepared(model, "auto", lc.Masking(), lc.LearningPath.explicit([1.0, 0.5])).views
    assert views(torch.randn(2, 3, 32, 32), dtype)._images == images
