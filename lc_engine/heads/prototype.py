"""Prototypes: the mean feature of each class, over the data that is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lc_engine._util.digests import tensors_digest
from lc_engine.ops import contract

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Class means of the unmasked model's features; classes without a sample are not in it.

    Attributes:
        labels: (C,) int64 the labels that have a mean, ascending.
        means: (C, D) μ_c, float32 (float64 for a float64 model), on the host.
        counts: (C,) int64 samples behind each mean.
        widths: of layer exits, how D is cut into the means of each exit; else empty.
    """

    labels: Tensor
    means: Tensor
    counts: Tensor
    widths: tuple[int, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of labels, means and counts, in hexadecimal."""
        return tensors_digest(
            [("labels", self.labels), ("means", self.means), ("counts", self.counts)]
        )

    def save(self, path: Path) -> None:
        """Write a `.npz` file."""
        with path.open("wb") as file:
            np.savez(
                file,
                labels=self.labels.numpy(),
                means=self.means.numpy(),
                counts=self.counts.numpy(),
                widths=np.array(self.widths, np.int64),
            )

    @classmethod
    def load(cls, path: Path) -> Prototypes:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            labels, means, counts = (
                torch.from_numpy(file[name]) for name in ("labels", "means", "counts")
            )
            return cls(labels, means, counts, tuple(file["widths"].tolist()))


class PrototypeSums:
    """Class sums of a stream of features, in float64, so that the order of batches is no matter."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._sums = torch.empty(0)
        self._counts = torch.empty(0, dtype=torch.int64)
        self._dtype = torch.float32

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch; rows that are not finite are left out.

        Args:
            features: (N, D) on any device.
            labels: (N,) integers ≥ 0, on any device.
        """
        self._dtype = contract.compute_dtype(features.dtype)
        values, labels = features.detach().cpu().double(), labels.cpu()
        finite = values.isfinite().all(1)
        values, labels = values[finite], labels[finite]
        present, inverse = np.unique(labels.numpy(), return_inverse=True)
        slots = [self._slots.setdefault(label, len(self._slots)) for label in present.tolist()]
        self._grow(values.shape[1])
        rows = torch.tensor(slots, dtype=torch.int64)[torch.from_numpy(inverse)]
        self._sums.index_add_(0, rows, values)
        self._counts += torch.bincount(rows, minlength=len(self._counts))

    def _grow(self, width: int) -> None:
        have, need = len(self._counts), len(self._slots)
        if need > have:
            room = max(need, 2 * have)
            sums = torch.zeros((room, width), dtype=torch.float64)
            if have:
                sums[:have] = self._sums
            self._sums = sums
            self._counts = torch.cat([self._counts, self._counts.new_zeros(room - have)])

    def means(self, widths: tuple[int, ...] = ()) -> Prototypes:
        """Give the class means so far; see `Prototypes` for `widths`.

        Raises:
            ValueError: no row was added.
        """
        if not self._slots:
            raise ValueError(
                "prototypes need at least one row with a label and finite features; there was none"
            )
        labels = sorted(self._slots)
        rows = [self._slots[label] for label in labels]
        counts = self._counts[rows]
        means = self._sums[rows] / counts.unsqueeze(1)
        return Prototypes(torch.tensor(labels), means.to(self._dtype), counts, widths)
