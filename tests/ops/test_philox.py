from __future__ import annotations

import pytest
import torch

from lc_engine.ops import philox

WORD = 0xFFFFFFFF


def first_word(index: int, stream: int, seed: int) -> int:
    """Philox4x32-10 in integers, as in its paper."""
    counter = [index & WORD, index >> 32, stream & WORD, 0]
    key = [seed & WORD, (seed >> 32) & WORD]
    for _ in range(10):
        left, right = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [
            (right >> 32) ^ counter[1] ^ key[0],
            right & WORD,
            (left >> 32) ^ counter[3] ^ key[1],
            left & WORD,
        ]
        key = [(key[0] + 0x9E3779B9) & WORD, (key[1] + 0xBB67AE85) & WORD]
    return counter[0]


def test_known_answer() -> None:
    # Random123's kat_vectors: philox4x32 10, counter and key all zeros.
    assert first_word(0, 0, 0) == 0x6627E8D5


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 17, -3])
@pytest.mark.parametrize("stream", [0, 5])
def test_matches_integer_philox(seed: int, stream: int) -> None:
    drawn = philox.uniform((3, 7), seed, stream)
    wanted = [(first_word(i, stream, seed) >> 8) / 2**24 for i in range(21)]
    assert drawn.dtype == torch.float32
    assert drawn.flatten().tolist() == wanted


def test_numbers_are_uniform_and_streams_differ() -> None:
    a, b = philox.uniform((20_000,), 7, 0), philox.uniform((20_000,), 7, 1)
    for drawn in (a, b):
        assert float(drawn.min()) >= 0
        assert float(drawn.max()) < 1
        # Five standard deviations of a mean of 20,000.
        assert abs(float(drawn.mean()) - 0.5) < 5 * 0.2887 / 20_000**0.5
        assert len(drawn.unique()) > 19_900
    assert not torch.equal(a, b)


def test_prefix_does_not_depend_on_the_shape() -> None:
    assert torch.equal(philox.uniform((11,), 3), philox.uniform((100,), 3)[:11])
    assert philox.uniform((0,), 3).shape == (0,)
