"""Rows of token ids, some of which begin alike."""

from __future__ import annotations

import numpy as np

from lc_engine.language.tokens import Tokens


def row(ids, first):
    ids = np.array(ids, dtype=np.int64)
    return Tokens(ids, np.arange(len(ids)) >= first)


def random_rows(seed, count=40):
    generator = np.random.default_rng(seed)
    starts = [list(range(20)), list(range(50, 75)), []]
    rows = []
    for _ in range(count):
        ids = starts[generator.integers(3)] + generator.integers(100, 200, size=12).tolist()
        rows.append(row(ids[: -int(generator.integers(0, 9)) or None], len(ids) - 11))
    return rows
