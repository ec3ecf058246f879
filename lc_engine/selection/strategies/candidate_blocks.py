"""Blocks of candidates, which bound the cost of a greedy strategy on a large group.

A greedy choice of k of n rows reads all n candidates k times. On a large group it chooses from one
block of rows after another instead, as a stochastic greedy algorithm limits each step to a random
sample of the candidates (Mirzasoleiman et al., "Lazier Than Lazy Greedy", AAAI 2015). Rows are in
the order of a hash of their id, so a block is a random sample that does not depend on the order of
the data.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lc_engine.selection.budget import apportion

if TYPE_CHECKING:
    from lc_engine.selection.problem import Problem

_log = logging.getLogger(__name__)

EXACT_PAIRS = 1_000_000  # n · k up to which every step reads all candidates
MIN_ROWS = 1024  # of a block: the features of fewer rows leave a part of the cache unused
MIN_KEPT = 32  # rows kept of a block, so that each leaves room for a greedy choice


class Block(NamedTuple):
    """Rows [start, stop) of a group, of which `budget` are kept."""

    start: int
    stop: int
    budget: int


def candidate_blocks(rows: int, count: int) -> list[Block]:
    """Return the blocks that a greedy choice of `count` of `rows` rows goes through."""
    blocks = number_of_blocks(rows, count)
    if blocks == 1:  # most groups: no budget to share out
        return [Block(0, rows, count)]
    edges = np.linspace(0, rows, blocks + 1).astype(np.int64)
    counts = apportion(np.diff(edges), count)
    parts = zip(edges.tolist(), edges[1:].tolist(), counts.tolist(), strict=False)
    return [Block(*part) for part in parts]


def log_blocks(problem: Problem, strategy: str) -> None:
    """Say once for which groups a strategy reads the candidates in blocks, and what it saves."""
    sizes, counts = problem.rows.group_sizes, problem.counts
    blocks = np.array([number_of_blocks(n, k) for n, k in zip(sizes, counts, strict=True)])
    if (blocks > 1).any():
        pairs = sizes * counts
        _log.info(
            "%s chooses from blocks of candidates in %d of %d groups, "
            "which is %.0f times less work than from all candidates at once",
            strategy,
            (blocks > 1).sum(),
            len(blocks),
            pairs.sum() / (pairs / blocks).sum(),
        )


def number_of_blocks(rows: int, count: int) -> int:
    """Return into how many blocks a group of rows is cut, of which `count` are kept."""
    if rows * count <= EXACT_PAIRS:
        return 1
    return max(1, min(rows // MIN_ROWS, count // MIN_KEPT))
