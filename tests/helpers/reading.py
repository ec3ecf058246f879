"""Read a source row by row, and compare rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lc_engine.data.batch import Source


def read_rows(source: Source, batch_size: int, start: int = 0, stop: int | None = None) -> list:
    """Return (id, input or None, label, status, detail) of each row; check every batch."""
    rows = []
    for batch in source.batches(batch_size, start, stop):
        count = len(batch)
        assert 0 < count <= batch_size
        assert len(batch.ids) == len(batch.labels) == len(batch.detail) == count
        assert len(batch.inputs) == batch.status.count("ok")
        inputs = iter(batch.inputs.numpy())
        for i in range(count):
            ok = batch.status[i] == "ok"
            assert ok == (batch.detail[i] == "")
            rows.append(
                (
                    batch.ids[i].item(),
                    next(inputs) if ok else None,
                    int(batch.labels[i]),
                    batch.status[i],
                    batch.detail[i],
                )
            )
    return rows


def assert_same(left: list, right: list) -> None:
    """Compare two lists of rows, inputs bit for bit."""
    assert [(r[0], *r[2:]) for r in left] == [(r[0], *r[2:]) for r in right]
    for a, b in zip(left, right, strict=True):
        if a[1] is not None:
            np.testing.assert_array_equal(a[1], b[1], strict=True)
