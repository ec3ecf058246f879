"""What a job asks of a scorer: rows in, scores out, whatever the model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor

    from lc_engine.data.batch import Batch, Source
    from lc_engine.ops import PathScores
    from lc_engine.path.learning_path import LearningPath

    # Called as progress(phase, rows done, rows in all).
    Progress = Callable[[str, int, int], None]
    # Called as progress(rows of the batch done), in rising order.
    BatchProgress = Callable[[int], None]


class RowScores(NamedTuple):
    """Scores of the B rows of a batch, all on the host; NaN where the status is not "ok".

    Attributes:
        scores: lc (B,), loss (B,) and log_probs (K, B).
        lc_std: (B,) √(Σ ω_k p_k² − lc²), the spread of the confidence over the path.
        status: B of "ok", "unreadable", "bad_label", "non_finite", …; a `Mostly` is cheapest.
        detail: B sentences, "" where the row is ok.
        extra: further columns of the score table by name, each (B,).
    """

    scores: PathScores
    lc_std: Tensor
    status: Sequence[str]
    detail: Sequence[str]
    extra: Mapping[str, Tensor] = {}


@runtime_checkable
class Waiting(Protocol):
    """A progress that wants to know how long the job waits for its data."""

    def waited(self, seconds: float) -> None:
        """Take note that a batch was waited for."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A scorer whose inputs are tensors: a job brings them to their device ahead of it."""

    @property
    def input_device(self) -> torch.device:
        """Where the model is."""
        ...


class RowScorer(Protocol):
    """What `lc_engine.score` runs over a source."""

    @property
    def path(self) -> LearningPath:
        """The K points of a score."""
        ...

    def check(self, source: Source) -> None:
        """Refuse data that this scorer cannot score.

        Raises:
            ValueError: saying why, and what to do.
        """
        ...

    def fitted(
        self, source: Source, keep_in: Path | None, batch_size: int, progress: Progress | None
    ) -> RowScorer:
        """Give a scorer that has learnt what it needs from the data; itself if that is nothing.

        Args:
            source: the data to be scored.
            keep_in: the folder of the run, where what was learnt is kept so that a run that
                continues has the same; None keeps it in memory.
            batch_size: rows at a time.
            progress: called as progress(phase, rows done, rows in all).
        """
        ...

    def score_rows(self, batch: Batch, progress: BatchProgress | None = None) -> RowScores:
        """Score a batch of which any row may be bad: such a row keeps or gets a status.

        Args:
            batch: B rows.
            progress: called while the batch is scored, if that may take seconds.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return all that the scores depend on but the data, as JSON values with digests."""
        ...
