"""What a strategy takes, from a count of its operations, said before it begins."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lc_engine.selection.auto_gamma import constants
from lc_engine.selection.strategies import feature_space, uncertainty
from lc_engine.selection.strategies.candidate_blocks import number_of_blocks
from lc_engine.selection.strategies.herding import MARGIN_WIDTH
from lc_engine.selection.strategies.per_group import CHUNK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lc_engine.selection.problem import Problem

_log = logging.getLogger(__name__)

SAID_FROM: Final = 60.0  # seconds
REFUSED_FROM: Final = 7200.0
_CGROUP: Final = Path("/sys/fs/cgroup/memory.max")
# Epochs of the linear probe behind each strategy.
_EPOCHS: Final = {
    "el2n": uncertainty.EL2N_RUNS * uncertainty.EL2N_EPOCHS,
    "entropy": uncertainty.EPOCHS,
    "least_confidence": uncertainty.EPOCHS,
    "margin": uncertainty.EPOCHS,
}
_CHEAPER: Final = {
    "easy_diverse": "fewer clusters, or strategy easy or flexrand, which read the scores alone",
    "el2n": "strategy margin takes less than half of it, hard reads the scores alone",
    "entropy": "strategy hard reads the scores alone",
    "least_confidence": "strategy hard reads the scores alone",
    "margin": "strategy hard reads the scores alone",
}


class Cost(NamedTuple):
    """What a strategy takes.

    Attributes:
        seconds: of one core, at nominal rates.
        bytes: of memory, besides the features as they are stored.
    """

    seconds: float
    bytes: int


def estimate(problem: Problem, strategy: str, width: int, clusters: int | None = None) -> Cost:
    """Return what a strategy takes that reads features.

    Args:
        problem: rows and budgets.
        strategy: its name.
        width: D of the features.
        clusters: of easy_diverse.
    """
    sizes, counts = problem.rows.group_sizes, problem.counts
    rows = len(problem.rows)
    seconds = rows * width / constants.VALUES_READ
    matrix = 4 * rows * width
    held = matrix + 3 * 4 * min(rows, CHUNK) * width
    if strategy in ("herding", "guarded_herding", "kcenter"):
        blocks = [number_of_blocks(n, k) for n, k in zip(sizes, counts, strict=True)]
        seconds += float(2 * width * (sizes * counts / blocks).sum()) / constants.GREEDY_RATE
        held += 2 * 4 * width * int(max(sizes / blocks))
    if strategy == "guarded_herding":
        classes = len(np.unique(problem.rows.labels()))
        seconds += 2 * rows * min(width, MARGIN_WIDTH) * classes / constants.PRODUCT_RATE
    if strategy == "guarded_herding" and width > MARGIN_WIDTH:
        seconds += 2 * rows * MARGIN_WIDTH * width / constants.PRODUCT_RATE
        held += 4 * rows * MARGIN_WIDTH  # the features, projected
        held += 11 * 4 * (8 * MARGIN_WIDTH) ** 2  # eigenvectors of a sample, as NumPy 2.5 has them
    if strategy == "easy_diverse":
        k = np.array([feature_space.clusters_of(count, clusters) for count in counts.tolist()])
        read = sizes + constants.K_MEANS_PASSES * np.minimum(sizes, feature_space.FIT_ROWS)
        seconds += float(2 * width * (k * read).sum()) / constants.PRODUCT_RATE
        held += 2 * 4 * width * min(int(sizes.max()), feature_space.FIT_ROWS)
    if strategy in _EPOCHS:
        classes = len(np.unique(problem.rows.labels()))
        work = 6 * rows * (width + 1) * classes  # forward, backward, and all rows once more
        seconds += _EPOCHS[strategy] * work / constants.PRODUCT_RATE
        held += 2 * matrix + 4 * 4 * rows * classes
    return Cost(seconds, held)


def say_or_refuse(
    problem: Problem, strategy: str, width: int, options: Mapping[str, Any] | None = None
) -> None:
    """Log what a strategy takes if that is minutes; see `estimate`.

    Raises:
        ValueError: it takes hours, or more memory than the machine has; the text names what
            takes less.
    """
    cost = estimate(problem, strategy, width, (options or {}).get("clusters"))
    kept = int(problem.counts.sum())
    memory = memory_of_machine()
    described = (
        f"strategy {strategy} on {len(problem.rows):,} rows of {width:,} features, {kept:,} of "
        f"them kept, takes about {_duration(cost.seconds)} on one core and "
        f"{cost.bytes / 2**30:.1f} GiB of memory"
    )
    if cost.seconds >= REFUSED_FROM or cost.bytes > memory:
        limit = f", but this machine has {memory / 2**30:.1f} GiB" if cost.bytes > memory else ""
        cheaper = _CHEAPER.get(strategy, "strategies easy and flexrand read the scores alone")
        raise ValueError(f"{described}{limit}: {cheaper}")
    if cost.seconds >= SAID_FROM:
        _log.info("%s", described)


def memory_of_machine() -> int:
    """Return the bytes of memory that this process may have, as far as that is known."""
    found = [1 << 62]
    if hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):  # no cgroup of version 2, or "max"
        found.append(int(_CGROUP.read_text()))
    return min(found)


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
