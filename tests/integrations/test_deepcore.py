"""A method class as DeepCore's main.py uses it."""

from __future__ import annotations

import numpy as np
import pytest

import lc_engine as lc
from lc_engine.integrations.deepcore import deepcore_method


def test_deepcore_gets_indices_and_scores(digit_scores):
    method = deepcore_method(digit_scores, gamma=0.5)
    # As its main.py constructs and calls a method.
    built = method(range(1797), object(), 0.1, 7, epochs=1, selection_method=None, balance=True)
    found = built.select()
    np.testing.assert_array_equal(found["indices"], lc.select(digit_scores, 0.1, gamma=0.5, seed=7))
    np.testing.assert_array_equal(found["scores"], digit_scores.column("lc"))
    with pytest.raises(ValueError, match="the data set 5"):
        method(range(5), object())
