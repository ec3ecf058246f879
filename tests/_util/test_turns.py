from __future__ import annotations

import pytest

from lc_engine._util.turns import Ratio, in_turns


def test_each_round_begins_with_another_one():
    assert list(in_turns("abc", 4)) == list("abcbcacababc")
    assert list(in_turns([], 0)) == []


def test_the_ratio_is_that_of_the_rounds():
    """Not of the medians: a round that was slow for both says as much as another."""
    ratio = Ratio.of([2.0, 60.0, 2.2], [1.0, 30.0, 1.0])
    assert ratio == Ratio(2.0, 2.0, pytest.approx(2.2))
    assert ratio.can_be_stated
    assert str(ratio) == "2.00× (2–2.2)"


def test_rounds_that_differ_too_much_give_none():
    ratio = Ratio.of([9.6, 364.0, 10.0], [1.0, 1.0, 1.0])
    assert not ratio.can_be_stated
    assert str(ratio) == "none (9.6–364)"
