"""The job that a benchmark runs, and the ways to do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lc_engine.bench.parity import EXACT, Tolerance
from lc_engine.data.batch import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from lc_engine.bench.machine import Work
    from lc_engine.data.batch import Source
    from lc_engine.data.table import ScoreTable
    from lc_engine.path.learning_path import LearningPath

NAIVE: Final = "naive loop"
RELEASED: Final = "released way"
COMPILED: Final = "torch.compile"
FROZEN: Final = "torch.compile, frozen, bfloat16"
BFLOAT16: Final = "bfloat16 loop"
ENGINE: Final = "engine"
ENGINE_BFLOAT16: Final = "engine, bfloat16"


@dataclass(frozen=True)
class Way:
    """One way to score rows.

    Attributes:
        name: of the way.
        run: takes the rows and the path, returns lc (N,) of the rows that are ok, in order. It
            starts from the files.
        tolerance: how far it may be from the naive loop.
        optional: whether it may fail; the reason is reported then.
    """

    name: str
    run: Callable[[Source, LearningPath], np.ndarray]
    tolerance: Tolerance = EXACT
    optional: bool = False


@dataclass(frozen=True)
class Job:
    """What is scored, and how.

    Attributes:
        title: model and head.
        source: the rows.
        path: the sub-models.
        ways: `NAIVE` and `ENGINE` among them.
        passes: times the engine reads the data.
        forwards: dense forwards of the rows in a loop of K sub-models, minus K.
        work: of one dense forward of all rows.
    """

    title: str
    source: Source
    path: LearningPath
    ways: Sequence[Way]
    passes: int
    forwards: int
    work: Work


def pairs(source: Source, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Read (inputs, labels) of the rows that are ok."""
    for batch in source.batches(batch_size):
        ok = np.array([status == OK for status in batch.status], dtype=bool)
        if ok.any():
            yield batch.inputs, batch.labels if ok.all() else batch.labels[ok]


def scored(table: ScoreTable) -> np.ndarray:
    """Return lc of the rows of a table that are ok."""
    lc = table.column("lc")
    return np.asarray(lc[table.column("status") == OK], dtype=np.float64)
