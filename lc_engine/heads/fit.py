"""What heads learn from the data, in one pass: class means, or rows to find neighbours among."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from lc_engine.data.batch import OK
from lc_engine.heads.memory_bank import Bank, bank_rows
from lc_engine.heads.prototype import Prototypes, PrototypeSums

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lc_engine.data.batch import Source
    from lc_engine.data.protocols import Progress


def class_means(
    source: Source,
    whole: Callable[[Tensor], tuple[Tensor, tuple[int, ...]]],
    batch_size: int,
    progress: Progress | None,
) -> Prototypes:
    """Take the class means of the whole model's features over the rows whose status is "ok".

    Args:
        source: the data.
        whole: inputs (N, …) -> features (N, D), and the widths of the parts that they are made of.
        batch_size: rows that go through the model at a time.
        progress: called as progress("prototypes", rows done, rows in all).

    Raises:
        ValueError: no row with a label and finite features.
    """
    sums, done = PrototypeSums(), 0
    widths: tuple[int, ...] = ()
    for batch in source.batches(batch_size):
        if len(batch.inputs):
            labels = batch.labels[[status == OK for status in batch.status]]
            features, widths = whole(batch.inputs)
            sums.add(features, labels)
        done += len(batch)
        if progress is not None:
            progress("prototypes", done, len(source))
    return sums.means(widths)


def neighbours(
    source: Source,
    along_the_path: Callable[[Tensor], list[Tensor]],
    points: int,
    batch_size: int,
    progress: Progress | None,
) -> Bank:
    """Keep the features of up to `bank.BANK_ROWS` rows under every sub-model.

    Args:
        source: the data.
        along_the_path: inputs (N, …) -> features of all sub-models, K × (N, D) on the host.
        points: K.
        batch_size: rows that go through the model at a time.
        progress: called as progress("neighbours", rows done, rows in all).

    Raises:
        ValueError: fewer than two rows with a label and finite features.
    """
    wanted = bank_rows(len(source))
    ids: list[np.ndarray] = []
    labels: list[Tensor] = []
    features: list[list[Tensor]] = [[] for _ in range(points)]
    done = 0
    for batch in source.batches(batch_size):
        ok = np.array([status == OK for status in batch.status])
        chosen = np.isin(np.arange(done, done + len(batch)), wanted)
        done += len(batch)
        if (ok & chosen).any():
            every = along_the_path(batch.inputs[torch.from_numpy(chosen[ok])])
            finite = torch.stack([values.isfinite().all(1) for values in every]).all(0)
            ids.append(batch.ids[ok & chosen][finite.numpy()])
            labels.append(batch.labels[torch.from_numpy(ok & chosen)][finite])
            for kept, values in zip(features, every, strict=True):
                kept.append(values[finite])
        if progress is not None:
            progress("neighbours", done, len(source))
    if sum(map(len, ids)) < 2:
        raise ValueError(
            "a kNN head needs at least two rows with a label and finite features; there were "
            f"{sum(map(len, ids))}"
        )
    return Bank(
        np.concatenate(ids), torch.cat(labels), tuple(torch.cat(values) for values in features)
    )
