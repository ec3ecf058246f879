from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.networks import Memory
from lc_engine.data.open import open_source
from lc_engine.data.wrap.cache import CachedSource
from lc_engine.data.wrap.subset import Subset, evenly_spaced, whole_of

ROWS = 23


def memory():
    status = ["ok" if row % 5 else "unreadable" for row in range(ROWS)]
    return Memory(torch.arange(ROWS, dtype=torch.float32)[:, None], torch.arange(ROWS), status)


def decoded():
    """A source that decodes rows one at a time; every fifth cannot be read."""
    rows = [(torch.full((1,), float(row if row % 5 else torch.nan)), row) for row in range(ROWS)]
    return open_source(rows, num_workers=2)


def half_cached():
    """A source that gives a run in pieces, where what is kept of it ends."""
    source = CachedSource(memory(), 1 << 10)
    next(source.batches(5))
    return source.freeze()


@pytest.mark.parametrize("source", [memory, decoded, half_cached])
@pytest.mark.parametrize(
    "rows", [[0, 1, 2, 3], [4, 5, 6], [0, 2, 3, 4, 9, 10, 22], [5], list(range(0, ROWS, 2)), []]
)
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_rows_are_those_chosen(source, rows, batch_size):
    subset = Subset(source(), np.array(rows, dtype=np.intp))
    assert len(subset) == len(rows)
    for start, stop in ((0, None), (1, 4), (2, 2)):
        if (stop or 0) > len(rows):
            continue
        wanted = rows[start:stop]
        batches = list(subset.batches(batch_size, start, stop))
        if source is not half_cached:
            sizes = [len(wanted[i : i + batch_size]) for i in range(0, len(wanted), batch_size)]
            assert [len(b) for b in batches] == sizes
        assert [i for b in batches for i in b.ids.tolist()] == wanted
        assert [i for b in batches for i in b.labels.tolist()] == wanted
        ok = [row for row in wanted if row % 5]
        assert [int(i) for b in batches for i in b.inputs[:, 0].tolist()] == ok
        assert [i for b in batches for i, s in zip(b.ids, b.status, strict=True) if s == "ok"] == ok
    with pytest.raises(ValueError, match="lie outside"):
        list(subset.batches(batch_size, 0, len(rows) + 1))


def test_a_subset_of_a_subset_is_of_the_whole():
    source = memory()
    odd = Subset(source, np.arange(1, ROWS, 2))
    few = Subset.spread(odd, 3)
    assert whole_of(few) is whole_of(odd) is whole_of(source) is source
    assert [i for b in few.batches(8) for i in b.ids.tolist()] == [1, 11, 21]
    assert [i for b in Subset.first(odd, 2).batches(8) for i in b.ids.tolist()] == [1, 3]
    assert few.digest() == source.digest()
    assert few.describe() == {"kind": "memory", "rows": 3, "of": ROWS}


def test_rows_are_evenly_spaced():
    assert evenly_spaced(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced(40, 4).tolist() == [0, 13, 26, 39]
    assert evenly_spaced(0, 4).tolist() == []
    for rows, count in ((100_000, 8192), (1000, 999), (7, 4)):
        found = evenly_spaced(rows, count)
        assert len(np.unique(found)) == count
        assert (found[0], found[-1]) == (0, rows - 1)
