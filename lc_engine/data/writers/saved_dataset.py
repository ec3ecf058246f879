"""Rows of a `datasets.Dataset`, saved as `save_to_disk` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def save_rows(dataset: Any, kept: NDArray[np.int64], out: Path) -> None:
    """Save some rows of a data set, with its features and description.

    Args:
        dataset: a `datasets.Dataset`.
        kept: row indices, ascending.
        out: the folder.
    """
    # With the list of indices that `select` adds every later read would be slower.
    rows = dataset.with_format(None).select(kept).flatten_indices()
    rows.save_to_disk(str(out))
