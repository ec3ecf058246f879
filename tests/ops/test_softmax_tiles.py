"""Softmaxes of bfloat16 logits against float64, tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from lc_engine.ops.softmax_tiles import SoftmaxTiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")


def taken(logits: Tensor, lost: Tensor, bias: Tensor, labels: Tensor, tile: int) -> SoftmaxTiles:
    softmax = SoftmaxTiles(len(logits), entropy=True)
    for first in range(0, logits.shape[1], tile):
        part = slice(first, first + tile)
        softmax.take_in(
            logits[:, part].contiguous(),
            lost=lost[:, part].contiguous(),
            bias=bias[part],
            labels=labels,
            first=first,
        )
    return softmax


@pytest.mark.parametrize("classes", [1, 5, 16, 83])
@pytest.mark.parametrize("tile", [1, 7, 32, 100])
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_matches_float64(draw: Draw, classes: int, tile: int, size: float) -> None:
    exact = draw(70, classes) * size  # more rows than a task has
    logits, bias = exact.bfloat16(), draw(classes)
    lost = (exact - logits.float()).bfloat16()
    labels = torch.arange(70) % classes
    wide = logits.double() + lost.double() + bias.double()
    log_p = wide.log_softmax(1)
    nll, entropy = taken(logits, lost, bias, labels, tile).close()
    close = torch.testing.assert_close
    wanted = -log_p.gather(1, labels[:, None]).squeeze(1)
    close(nll.double(), wanted, rtol=1e-5, atol=1e-6 * size * 10)
    close(entropy.double(), -(log_p.exp() * log_p).sum(1), rtol=1e-5, atol=1e-6 * size * 10)
    largest = torch.from_numpy(taken(logits, lost, bias, labels, tile).log_probs(labelled=False))
    close(largest.double(), log_p.amax(1), rtol=1e-5, atol=1e-6 * size * 10)


def test_nan_stays_in_its_row_and_minus_infinity_has_no_part() -> None:
    logits = torch.zeros(3, 40).bfloat16()
    logits[1, 37] = torch.nan
    logits[2, ::2] = -torch.inf
    softmax = SoftmaxTiles(3)
    softmax.take_in(logits, labels=torch.tensor([0, 0, 1]))
    found = softmax.log_probs(labelled=True)
    np.testing.assert_allclose(found, [-np.log(40), np.nan, -np.log(20)], rtol=1e-6)


def test_equal_logits_are_exactly_uniform() -> None:
    softmax = SoftmaxTiles(1)
    softmax.take_in(torch.full((1, 1024), -3.0).bfloat16())
    assert softmax.log_probs(labelled=False)[0] == np.float32(-np.log(1024))
