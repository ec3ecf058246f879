"""What measures a path: a scorer, seen only by what it returns for a sample of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A `LearningPath`, which asks this protocol: naming it here would be a circle.
Path = TypeVar("Path")


class SampleScorer(Protocol[Path]):
    """A scorer that returns log p of a sample of rows."""

    @property
    def path(self) -> Path:
        """Its own path."""
        ...

    def sample_log_probs(
        self, data: Any, samples: int, path: Path | None = None
    ) -> NDArray[np.float64]:
        """Return log p (K, M) of evenly spaced rows of the data along a path.

        Args:
            data: what the scorer scores.
            samples: most rows that are read.
            path: the K capacities, by default the scorer's own.

        Raises:
            ValueError: the scorer's path is fixed by its model, or no row can be scored.
        """
        ...
