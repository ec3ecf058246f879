"""Attention against float64, of tensors as models make them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from lc_engine.ops import attention, contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Draw = Callable[..., Tensor]

DTYPES = [torch.float32, torch.bfloat16]
# batch, heads, queries, keys, dims, outputs
SHAPES = [
    (1, 1, 1, 1, 1, 1),
    (2, 3, 197, 197, 64, 64),
    (1, 2, 5, 130, 20, 20),
    (3, 1, 66, 17, 33, 33),
    (1, 2, 49, 49, 40, 40),
    (2, 2, 33, 113, 80, 7),
    (1, 1, 150, 500, 128, 16),
    (1, 3, 16, 2, 2, 31),
]


def exact(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False
) -> Tensor:
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = q.double() @ k.double().transpose(-1, -2) * scale
    if causal:
        queries, keys = scores.shape[-2:]
        seen = torch.arange(keys) <= torch.arange(keys - queries, keys)[:, None]
        scores = scores.where(seen, -math.inf)
    return torch.softmax(scores, -1) @ v.double()


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """Compare by the largest number.

    In bfloat16 weights and results are rounded to 8 bits. In float32 a score of 20 has an error
    of a few 2^-24 of that, which a weight has relative to itself.
    """
    assert found.dtype == dtype
    rough = 2**-8 if dtype == torch.bfloat16 else 1e-5
    scale = wanted.abs().max().item() if wanted.numel() else 0.0
    torch.testing.assert_close(found.double(), wanted, rtol=rough, atol=rough * scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(draw: Draw, backend: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    batch, heads, queries, keys, dims, outputs = shape
    q, k, v = (
        draw(batch, heads, tokens, size).to(dtype)
        for tokens, size in ((queries, dims), (keys, dims), (keys, outputs))
    )
    for scale in (None, 0.7):
        close(attention(q, k, v, scale, backend=backend), exact(q, k, v, scale), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1, 1, 1),
        (1, 2, 1, 130, 20, 20),
        (2, 3, 231, 255, 64, 64),
        (3, 1, 66, 67, 33, 33),
        (2, 2, 113, 113, 80, 7),
        (1, 1, 150, 500, 128, 16),
        (1, 3, 16, 17, 2, 31),
    ],
    ids=str,
)
def test_causal_order(draw: Draw, backend: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    batch, heads, queries, keys, dims, outputs = shape
    q, k, v = (
        draw(batch, heads, tokens, size).to(dtype)
        for tokens, size in ((queries, dims), (keys, dims), (keys, outputs))
    )
    found = attention(q, k, v, causal=True, backend=backend)
    close(found, exact(q, k, v, causal=True), dtype)
    # What a query does not see changes nothing.
    k[..., -1, :], v[..., -1, :] = 1e4, 1e4
    again = attention(q, k, v, causal=True, backend=backend)
    assert torch.equal(again[..., :-1, :], found[..., :-1, :])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dims", [64, 33])
def test_views_as_models_make_them(draw: Draw, backend: str, dtype: torch.dtype, dims: int) -> None:
    qkv = draw(2, 50, 3, 4, dims).to(dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    out = attention(q, k, v, backend=backend)
    close(out, exact(q, k, v), dtype)
    assert out.transpose(1, 2).is_contiguous()
    flipped = q.transpose(-1, -2).contiguous().transpose(-1, -2)  # dims that are not contiguous
    close(attention(flipped, k, v, backend=backend), exact(q, k, v), dtype)
    one = k[:1].expand(2, -1, -1, -1)
    close(attention(q, one, v, backend=backend), exact(q, one, v), dtype)


@pytest.mark.parametrize("leading", [(), (2, 3)], ids=str)
def test_other_numbers_of_dims(draw: Draw, backend: str, leading: tuple[int, ...]) -> None:
    q, k, v = draw(*leading, 2, 9, 8), draw(*leading, 2, 11, 8), draw(*leading, 2, 11, 5)
    close(attention(q, k, v, backend=backend), exact(q, k, v), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 7, 8), (2, 0, 7, 8), (2, 3, 0, 8)], ids=str)
def test_without_a_query(
    draw: Draw, backend: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    q, k = draw(*shape).to(dtype), draw(*shape[:2], 5, 8).to(dtype)
    assert attention(q, k, k, backend=backend).shape == shape


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1e4, -1e4, 1e-30])
def test_extreme_scores(draw: Draw, backend: str, dtype: torch.dtype, size: float) -> None:
    # Products of whole numbers are exact, and so are the scores, whatever their size.
    q, k = (draw(2, 2, 40, 16).mul(2).round().to(dtype) for _ in "qk")
    v = draw(2, 2, 40, 16).to(dtype)
    k = k * (1 if abs(size) > 1 else size) * math.copysign(1, size)
    scale = 2.0**11 if abs(size) > 1 else 1.0
    found = attention(q, k, v, scale, backend=backend)
    close(found, exact(q, k, v, scale), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_nan_stays_where_it_is(draw: Draw, backend: str, dtype: torch.dtype) -> None:
    q, k, v = (draw(1, 2, 130, 20).to(dtype) for _ in "qkv")
    q[0, 0, 77, 3] = math.nan
    found = attention(q, k, v, backend=backend)
    assert bool(found[0, 0, 77].isnan().all())
    rest = [i for i in range(130) if i != 77]
    assert bool(found[0, 0, rest].isfinite().all())
    assert bool(found[0, 1].isfinite().all())
    for last in (0, 129):
        broken = k.clone()
        broken[0, 1, last, 5] = math.nan
        found = attention(q, broken, v, backend=backend)
        assert bool(found[0, 1].isnan().all())
    v[0, 1, 100, 4] = math.nan
    found = attention(q, k, v, backend=backend)
    assert bool(found[0, 1, :, 4].isnan().all())
    assert bool(found[0, 1, :, :4].isfinite().all())


def test_infinite_scores(draw: Draw, backend: str) -> None:
    """A key at −∞ has no weight; a row of nothing else, or with one at +∞, is NaN."""
    q, k, v = torch.ones(1, 1, 2, 1), draw(1, 1, 300, 1), draw(1, 1, 300, 3)
    k[..., :200, :] = -math.inf
    found = attention(q, k, v, backend=backend)
    close(found, exact(q, k[..., 200:, :], v[..., 200:, :]), torch.float32)
    k[..., 200:, :] = -math.inf
    assert bool(attention(q, k, v, backend=backend).isnan().all())
    k[..., 7, :] = math.inf
    assert bool(attention(q, k, v, backend=backend).isnan().all())


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_has_the_same_bits_in_every_batch_and_at_every_thread_count(
    draw: Draw, dtype: torch.dtype, set_threads: Callable[[int], None]
) -> None:
    q, k, v = (draw(3, 2, 300, 24).to(dtype) for _ in "qkv")
    set_threads(2)
    whole = attention(q, k, v)
    set_threads(1)
    assert torch.equal(attention(q, k, v), whole)
    assert torch.equal(attention(q[1:2, 1:, 7:40], k[1:2, 1:], v[1:2, 1:]), whole[1:2, 1:, 7:40])


def test_float64_is_the_reference_s(draw: Draw) -> None:
    q, k, v = (draw(2, 2, 30, 8).double() for _ in "qkv")
    torch.testing.assert_close(attention(q, k, v), exact(q, k, v), rtol=1e-12, atol=1e-12)


def test_opcheck(draw: Draw) -> None:
    q, k, v = draw(2, 3, 9, 8), draw(2, 3, 5, 8), draw(2, 3, 5, 6)
    torch.library.opcheck(torch.ops.lc_engine.attention.default, (q, k, v, None, False, "auto"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.ones(4, 8)}, r"q must be a floating-point tensor of shape \(…, H, Q, D\)"),
        ({"q": torch.ones(1, 4, 8, dtype=torch.int64)}, "q must be a floating-point tensor"),
        ({"k": torch.ones(1, 5, 9)}, r"k must have shape \(1, K, 8\), got \(1, 5, 9\)"),
        ({"k": torch.ones(2, 5, 8)}, r"k must have shape \(1, K, 8\)"),
        ({"k": torch.ones(1, 0, 8)}, "k must have a token"),
        ({"v": torch.ones(1, 6, 8)}, r"v must have shape \(1, 5, E\)"),
        ({"v": torch.ones(1, 5, 8).double()}, r"v is torch\.float64 but q is torch\.float32"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": math.nan}, "scale must be positive"),
        (
            {"q": torch.ones(1, 6, 8), "causal": True},
            "causal: q must have at most the 5 tokens of k, got 6",
        ),
        ({"backend": "triton"}, "backend must be 'auto', 'reference' or 'native'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    arguments = {"q": torch.ones(1, 4, 8), "k": torch.ones(1, 5, 8), "v": torch.ones(1, 5, 8)}
    with pytest.raises(ValueError, match=message):
        attention(**arguments | change)


@pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")
def test_native_refuses_what_it_cannot_take() -> None:
    q = torch.ones(1, 4, 8, dtype=torch.float16)
    with pytest.raises(ValueError, match="takes float32 or bfloat16 on a CPU"):
        attention(q, q, q, backend="native")
