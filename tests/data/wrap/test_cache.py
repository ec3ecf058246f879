from __future__ import annotations

import numpy as np
import pytest
import torch

from lc_engine.data.batch import OK, UNREADABLE, Batch, row_ranges
from lc_engine.data.wrap.cache import CachedSource

ROWS = 23


class Counting:
    """Rows 0 … 22 as images of their own index, every fifth unreadable; records what is read."""

    classes = None

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return ROWS

    def digest(self) -> str:
        return "digest"

    def describe(self):
        return {"kind": "counting"}

    def batches(self, batch_size, start=0, stop=None):
        for rows in row_ranges(ROWS, batch_size, start, stop):
            self.read += rows
            good = [row for row in rows if row % 5]
            yield Batch(
                ids=np.array(rows),
                inputs=torch.tensor(good, dtype=torch.float32)[:, None, None, None].expand(
                    -1, 3, 2, 2
                ),
                labels=torch.tensor(rows),
                status=[OK if row % 5 else UNREADABLE for row in rows],
                detail=["" if row % 5 else f"row {row}" for row in rows],
            )


def rows_of(batches):
    found = []
    for batch in batches:
        inputs = iter(batch.inputs[:, 0, 0, 0].tolist())
        for i, row in enumerate(batch.ids.tolist()):
            ok = batch.status[i] == OK
            found.append((row, int(batch.labels[i]), batch.detail[i], next(inputs) if ok else None))
        assert next(inputs, None) is None
    return found


@pytest.mark.parametrize("budget", [0, 7, 12, ROWS])  # images; unreadable rows take nothing
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_the_second_pass_returns_the_same_rows(budget, batch_size):
    source = Counting()
    rows = CachedSource(source, budget * 3 * 2 * 2 * 4)
    plain = rows_of(Counting().batches(batch_size))
    assert rows_of(rows.batches(batch_size)) == plain
    assert source.read == list(range(ROWS))
    rows.freeze()
    for cut in ([(0, ROWS)], [(3, 11), (11, 12), (12, 12), (12, ROWS)]):
        source.read.clear()
        for start, stop in cut:
            assert rows_of(rows.batches(5, start, stop)) == plain[start:stop]
        assert all(row > rows.cached_rows - 5 for row in source.read), "whole batches"
    assert (rows.cached_rows == ROWS) == (budget == ROWS)


@pytest.mark.parametrize("cached", [0, 6, ROWS])
def test_batches_are_cut_as_without_a_cache(cached):
    """Rows that go through a model together decide how its sums are rounded."""
    rows = CachedSource(Counting(), 1 << 20)
    for batch in rows.batches(3):
        if rows.cached_rows >= cached:
            break
        assert len(batch) == 3
    rows.freeze()
    for start, stop in ((0, ROWS), (5, 16), (7, 8), (4, ROWS)):
        found = [batch.ids.tolist() for batch in rows.batches(4, start, stop)]
        assert found == [batch.ids.tolist() for batch in Counting().batches(4, start, stop)]


def test_an_interrupted_pass_continues_where_it_stopped():
    source = Counting()
    rows = CachedSource(source, 1 << 20)
    next(rows.batches(16))
    assert rows.cached_rows == 16
    assert [row for row, *_ in rows_of(rows.batches(16))] == list(range(ROWS))
    assert sorted(source.read) == list(range(ROWS))


def test_rows_outside_are_refused():
    with pytest.raises(ValueError, match="outside"):
        list(CachedSource(Counting(), 0).batches(4, 0, ROWS + 1))


class Made:
    """What a model made of images: their mean, of a size of its own."""

    def __init__(self, values, row_bytes):
        self.values, self.row_bytes = values, row_bytes

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        return Made(self.values[rows], self.row_bytes)

    def __add__(self, others):
        return Made(torch.cat([self.values, others.values]), self.row_bytes)

    @property
    def nbytes(self):
        return len(self) * self.row_bytes


IMAGE = 3 * 2 * 2 * 4


def kept(rows, batch_size, row_bytes):
    """Read all rows, and let their means take the place of the images; return how many did."""
    start, taken = 0, 0
    for batch in rows.batches(batch_size):
        if rows.takes(batch, start, row_bytes):
            taken += len(batch)
            means = batch.inputs.flatten(1).mean(1)
            rows.keep(batch, start, Made(means, row_bytes) if len(means) else batch.inputs)
        start += len(batch)
    return taken


def means_of(batches):
    """Return row, label and mean of each row, whether images or what was made of them."""
    found = []
    for batch in batches:
        inputs = batch.inputs
        values = inputs.values if isinstance(inputs, Made) else inputs.flatten(1).mean(1)
        means = iter(values.tolist())
        for i, row in enumerate(batch.ids.tolist()):
            found.append((row, int(batch.labels[i]), next(means) if batch.status[i] == OK else -1))
        assert next(means, None) is None
    return found


@pytest.mark.parametrize("keeps_inputs", [True, False])
@pytest.mark.parametrize("row_bytes", [1, IMAGE, 5 * IMAGE])
@pytest.mark.parametrize("budget", [0, 40, 7 * IMAGE, 12 * IMAGE, 100 * IMAGE])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_results_take_the_place_of_inputs(budget, row_bytes, batch_size, keeps_inputs):
    source = Counting()
    plain = means_of(Counting().batches(batch_size))
    rows = CachedSource(source, budget, keeps_inputs=keeps_inputs, keeps_results=True)
    taken = kept(rows, batch_size, row_bytes)
    if budget >= ROWS * row_bytes and (keeps_inputs is False or budget >= ROWS * IMAGE):
        assert taken == ROWS
    assert kept(rows.freeze(), batch_size, row_bytes) == 0
    held = sum(batch.inputs.nbytes for batch in rows._cached)
    assert held + rows._free == budget
    assert rows._free >= 0
    for size in (batch_size, 3):
        source.read.clear()
        assert means_of(rows.batches(size)) == plain
        assert taken < ROWS or not source.read
        assert means_of(rows.batches(size, 3, 11)) == plain[3:11]


def test_results_are_taken_in_order_and_in_the_pieces_that_were_cached():
    rows = CachedSource(Counting(), 1 << 20, keeps_results=True)
    batches = list(rows.batches(4))
    assert not rows.takes(batches[1], 4, 1)
    assert rows.takes(batches[0], 0, 1)
    rows.keep(batches[0], 0, Made(torch.zeros(3), 1))
    (other,) = Counting().batches(2, 4, 6)
    assert not rows.takes(other, 4, 1)
    assert rows.takes(batches[1], 4, 1)
    assert not CachedSource(Counting(), 1 << 20).takes(batches[0], 0, 1)
