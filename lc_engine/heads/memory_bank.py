"""The memory bank of a kNN head: features of rows of the data under every sub-model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine._util.atomic_write import atomic_write
from lc_engine._util.digests import tensors_digest
from lc_engine.data.wrap.subset import evenly_spaced
from lc_engine.heads.origin import read_origin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

# Rows that are kept, evenly spaced in a larger data set.
BANK_ROWS = 8192


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


def bank_rows(rows: int) -> np.ndarray:
    """Return the rows of a data set that go into its bank: all, or `BANK_ROWS` evenly spaced."""
    return evenly_spaced(rows, BANK_ROWS)
