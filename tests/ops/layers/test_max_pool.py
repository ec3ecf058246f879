"""max_pool against torch's, bit for bit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.functional import max_pool2d

from lc_engine.ops import max_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [torch.float32, torch.bfloat16]
# (images, channels, height, width), kernel, stride, padding
CASES = [
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)),
    ((2, 64, 12, 10), (3, 3), (2, 2), (1, 1)),
    ((3, 70, 9, 7), (3, 2), (1, 3), (1, 0)),
    ((2, 5, 8, 8), (2, 2), (2, 2), (0, 0)),
    ((1, 147, 6, 11), (5, 4), (2, 1), (2, 2)),
    ((2, 16, 3, 4), (3, 4), (7, 7), (0, 0)),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_have_the_bits_of_torch(
    draw: Draw, dtype: torch.dtype, layout: torch.memory_format, relu: bool, case: tuple
) -> None:
    shape, *window = case
    x = draw(*shape).to(dtype)
    some = torch.rand(shape)
    for bound, value in ((0.02, math.nan), (0.06, -math.inf), (0.08, math.inf), (0.12, 1e-40)):
        x[(some < bound) & (some >= bound - 0.02)] = value
    x = x.contiguous(memory_format=layout)
    found = max_pool(x, *window, relu=relu)
    want = max_pool2d(x, *window)
    want = want.relu() if relu else want
    assert found.is_contiguous(memory_format=torch.channels_last)
    nan = want.isnan()
    assert torch.equal(found.isnan(), nan)
    bits = torch.int16 if dtype == torch.bfloat16 else torch.int32
    assert torch.equal(found[~nan].view(bits), want[~nan].view(bits))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_nan_of_either_sign_at_any_index_is_the_largest(sign: int) -> None:
    for index in range(9):
        x = torch.full((1, 20, 3, 3), math.inf).contiguous(memory_format=torch.channels_last)
        x.view(1, 20, 9)[..., index] = math.copysign(math.nan, sign)
        assert bool(max_pool(x, (3, 3), (1, 1)).isnan().all())
        assert bool(max_pool(x.bfloat16(), (3, 3), (1, 1), relu=True).isnan().all())


def test_without_an_image_or_a_channel() -> None:
    assert max_pool(torch.empty(0, 3, 5, 5), (3, 3), (2, 2)).shape == (0, 3, 2, 2)
    assert max_pool(torch.empty(2, 0, 5, 5), (3, 3), (2, 2)).shape == (2, 0, 2, 2)


def test_threads_give_the_same(draw: Draw, set_threads: Callable[[int], None]) -> None:
    x, found = draw(3, 33, 17, 9), []
    for threads in (1, 2):
        set_threads(threads)
        found.append(max_pool(x, (3, 3), (2, 2), (1, 1)))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("x", "window", "message"),
    [
        (torch.ones(4, 5, 5), ((2, 2), (1, 1)), r"x must have shape \(N, C, H, W\)"),
        (torch.ones(1, 4, 5, 5).double(), ((2, 2), (1, 1)), "float32 or bfloat16"),
        (torch.ones(1, 4, 5, 5), ((0, 2), (1, 1)), "kernel and stride must be positive"),
        (torch.ones(1, 4, 5, 5), ((2, 2), (1, 0)), "kernel and stride must be positive"),
        (torch.ones(1, 4, 5, 5), ((2, 2), (1, 1), (-1, 0)), "padding not negative"),
        (torch.ones(1, 4, 5, 5), ((3, 3), (1, 1), (2, 0)), "padding must be at most half"),
        (torch.ones(1, 4, 2, 5), ((3, 3), (1, 1)), "fewer than the kernel spans"),
    ],
)
def test_what_does_not_fit_is_refused(x: Tensor, window: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        max_pool(x, *window)
