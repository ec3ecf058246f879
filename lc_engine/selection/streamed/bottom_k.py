"""Bottom-k sampling: of each cell, the rows with the smallest random keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.grouped import smallest_per_group
from lc_engine.selection.id_hash import hash_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEY_BITS = 53  # the upper bits of a key, which a float64 holds exactly


class BottomK:
    """A uniform sample of `wanted[cell]` rows of each cell, nearly all decided as they are read.

    The wanted[cell]-th smallest key of a cell is close to wanted/sizes of the key range: rows
    clearly below are kept at once, rows clearly above dropped, and those between held back until
    all rows are read.

    Args:
        sizes: (C,) rows of each cell.
        wanted: (C,) rows to keep of each.
        slack: standard deviations that the largest key kept may lie off its expectation.
        seed: of the random keys.
    """

    def __init__(
        self, sizes: NDArray[np.int64], wanted: NDArray[np.int64], slack: float, seed: int
    ) -> None:
        share = wanted / np.maximum(sizes, 1)
        band = slack * np.sqrt(wanted * (1 - share)) + slack
        partial = (wanted > 0) & (wanted < sizes)
        low = np.where(partial, np.maximum(wanted - band, 0), wanted) / np.maximum(sizes, 1)
        high = np.where(partial, np.minimum(wanted + band, sizes), wanted) / np.maximum(sizes, 1)
        key_range = float(1 << _KEY_BITS)
        self._keep_below = (low * key_range).astype(np.int64)
        self._drop_from = (high * key_range).astype(np.int64)
        self._salt = hash_ids(np.array([seed % (1 << 63)]))[0]
        self._wanted, self._taken = wanted, np.zeros(len(wanted), np.int64)
        self._kept: list[NDArray[Any]] = []
        self._undecided: list[tuple[NDArray[Any], NDArray[np.intp], NDArray[np.int64]]] = []

    def add(self, ids: NDArray[Any], cell: NDArray[np.intp], id_hash: NDArray[np.uint64]) -> None:
        """Read rows: their ids, cells and id hashes, (N,) each."""
        key = self._keys(id_hash)
        keep = key < self._keep_below[cell]
        self._kept.append(ids[keep])
        self._taken += np.bincount(cell[keep], minlength=len(self._taken))
        held = ~keep & (key < self._drop_from[cell])
        self._undecided.append((ids[held], cell[held], key[held]))

    def result(self) -> NDArray[Any] | None:
        """Return the ids kept, or None if `slack` was too narrow."""
        ids, cell, key = (np.concatenate(parts) for parts in zip(*self._undecided, strict=True))
        left = self._wanted - self._taken
        if (left < 0).any() or (left > np.bincount(cell, minlength=len(left))).any():
            return None
        return np.concatenate([*self._kept, ids[smallest_per_group(key, cell, left)]])

    def _keys(self, id_hash: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return random keys (N,), uniform in [0, 2^53), another stream for each seed."""
        mixed = hash_ids((id_hash ^ self._salt).view(np.int64))
        return (mixed >> np.uint64(64 - _KEY_BITS)).astype(np.int64)
