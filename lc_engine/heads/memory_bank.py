"""The memory bank of a kNN head: features of rows of the data under every sub-model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine._util.atomic_write import atomic_write
from lc_engine._util.digests import tensors_digest
from lc_engine.heads.origin import read_origin
from lc_engine.selection.id_hash import hash_ids

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

# Rows that are kept: of a larger data set those whose ids have the smallest hashes.
BANK_ROWS = 8192
# Rows that are looked at beyond, in standard deviations of the number that falls below a hash.
_SPARE = 6


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """B rows of the data.

    Attributes:
        ids: (B,) of the rows.
        labels: (B,) int64.
        features: K tensors (B, D_k), on the host.
        origin: see `Prototypes`.
    """

    ids: np.ndarray
    labels: Tensor
    features: tuple[Tensor, ...]
    origin: Mapping[str, Any] | None = None

    @property
    def classes(self) -> Tensor:
        """(C,) the labels that occur, ascending."""
        return torch.from_numpy(np.unique(self.labels.numpy()))

    @property
    def digest(self) -> str:
        """SHA-256 of labels and features, in hexadecimal."""
        return tensors_digest(
            [("labels", self.labels), *((str(k), one) for k, one in enumerate(self.features))]
        )

    def index_of(self, ids: np.ndarray) -> Tensor:
        """Return the index in the bank of each row (N,) by its id, −1 for a row not in it."""
        order = np.argsort(self.ids)
        known = self.ids[order]
        found = np.searchsorted(known, ids.astype(known.dtype)).clip(max=len(known) - 1)
        return torch.from_numpy(np.where(known[found] == ids, order[found], -1))

    def save(self, path: Path) -> None:
        """Write a `.npz` file."""
        ids = self.ids.astype(str) if self.ids.dtype == object else self.ids
        parts: dict[str, Any] = {f"features{k}": one.numpy() for k, one in enumerate(self.features)}
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            origin = json.dumps(self.origin)
            np.savez(file, ids=ids, labels=self.labels.numpy(), origin=origin, **parts)

    @classmethod
    def load(cls, path: Path) -> MemoryBank:
        """Read what `save` wrote."""
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            count = sum(name.startswith("features") for name in file.files)
            features = tuple(torch.from_numpy(file[f"features{k}"]) for k in range(count))
            labels = torch.from_numpy(file["labels"])
            return cls(file["ids"], labels, features, read_origin(file))


def may_be_in_bank(ids: np.ndarray, rows: int) -> np.ndarray:
    """Return which rows of a data set may be in its bank, whatever the order of the rows.

    Args:
        ids: (N,) of some rows.
        rows: of the whole data set.

    Returns:
        (N,) bools: all, or where there are more than `BANK_ROWS` rows a few more than those with
        the smallest hashes.
    """
    if rows <= BANK_ROWS:
        return np.ones(len(ids), dtype=bool)
    share = min(1.0, (BANK_ROWS + _SPARE * BANK_ROWS**0.5) / rows)
    return hash_ids(ids) <= np.uint64(min(int(share * 2.0**64), 2**64 - 1))


def order_of_bank(ids: np.ndarray) -> np.ndarray:
    """Return the indices of the ids (N,) that stay in a bank, sorted by id."""
    found = np.argsort(ids, kind="stable")
    if len(ids) <= BANK_ROWS:
        return found
    # By id where hashes are equal.
    smallest = np.argsort(hash_ids(ids[found]), kind="stable")[:BANK_ROWS]
    return found[np.sort(smallest)]
