"""Interfaces of a scoring job: the scorer and the progress callback, whatever the model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from lc_engine.data.batch import Batch, Source
    from lc_engine.masking import MaskAccount
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
        lc_std: (B,) √(Σ ω_k p_k² − lc²), the std of the confidence over the path.
        status: B of "ok", "unreadable", "bad_label", "non_finite", "failed", …; a `SparseTexts` is
            cheapest.
        detail: B sentences, "" where the status is "ok".
        extra: further columns of the score table by name, each (B,).
        features: (B, D) float32 of the whole model, NaN where there are none; None unless they were
            asked for and a row has some.
    """

    scores: PathScores
    lc_std: Tensor
    status: Sequence[str]
    detail: Sequence[str]
    extra: Mapping[str, Tensor] = {}
    features: NDArray[np.float32] | None = None


class FeatureSink(Protocol):
    """What takes the whole model's features from a pass over all rows."""

    def start(self) -> None:
        """Begin (again) with the first row."""
        ...

    def add(self, batch: Batch, features: NDArray[np.float32] | None) -> None:
        """Add the next batch; features (M, D) of its rows whose status is "ok"."""
        ...


@runtime_checkable
class TracksWaiting(Protocol):
    """A progress callback that also records how long the job waits for data."""

    def waited(self, seconds: float) -> None:
        """Add the time that a batch was waited for."""
        ...


@runtime_checkable
class StartsRows(Protocol):
    """A scorer whose device computes a batch while the host prepares the next one."""

    def start_rows(self, batch: Batch, *, features: bool = False) -> Callable[[], RowScores]:
        """Begin to score a batch; return a function that waits for its scores."""
        ...


@runtime_checkable
class HasInputDevice(Protocol):
    """A scorer whose inputs are tensors, which the job prefetches to the device."""

    @property
    def input_device(self) -> torch.device:
        """The model's device."""
        ...


@runtime_checkable
class TakesNotes(Protocol):
    """A progress callback that also prints a line of its own."""

    def note(self, line: str) -> None:
        """Print a line."""
        ...


@runtime_checkable
class HasMaskAccount(Protocol):
    """A scorer that says what its masks reach."""

    @property
    def mask_account(self) -> MaskAccount | None:
        """The account; None where no weight is masked."""
        ...


@runtime_checkable
class HasHeadClasses(Protocol):
    """A scorer that may know how many classes there are before it reads any row."""

    @property
    def head_classes(self) -> int | None:
        """C, of the labels 0 … C − 1; None where any label may have a class."""
        ...


@runtime_checkable
class ContinuesRuns(Protocol):
    """A scorer that depends on when a run was begun."""

    def continued(self, manifest: Path) -> RowScorer:
        """Return the scorer as of a run that was begun before, if the manifest of one exists."""
        ...


class RowScorer(Protocol):
    """What `lc_engine.score` needs of a scorer."""

    @property
    def path(self) -> LearningPath:
        """The K points of a score."""
        ...

    def check(self, source: Source) -> None:
        """Check that this scorer can score the data.

        Raises:
            ValueError: it cannot; the text says why, and what to do.
        """
        ...

    def features_forwards(self) -> int | None:
        """Return how many further forwards per row the features of the whole model take.

        0 where scoring computes them in any case, 1 where it does not; None if the model is only
        its classifier: the rows are the features.
        """
        ...

    def fitted(
        self,
        source: Source,
        keep_in: Path | None,
        batch_size: int,
        progress: Progress | None,
        features: FeatureSink | None = None,
    ) -> RowScorer:
        """Return a scorer fitted to the data, or itself if there is nothing to fit.

        Args:
            source: the data to be scored.
            keep_in: the folder of the run, which stores what was fitted for a run that continues;
                None keeps it in memory.
            batch_size: rows at a time.
            progress: called as progress(phase, rows done, rows in all).
            features: gets the features, if fitting computes them.
        """
        ...

    def score_rows(
        self, batch: Batch, progress: BatchProgress | None = None, *, features: bool = False
    ) -> RowScores:
        """Score a batch of which any row may be bad: such a row keeps or gets a status.

        Args:
            batch: B rows.
            progress: called while the batch is scored, if that may take seconds.
            features: whether to return the features of the whole model too.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return what the scores depend on besides the data, as JSON values with digests."""
        ...
