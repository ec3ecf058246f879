from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.reading import assert_same, read_rows
from lc_engine.data.open import open_source


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows):
        self.rows = rows
        self.begun = 0

    def __iter__(self):
        self.begun += 1
        return iter(self.rows)


def made(count):
    rng = np.random.default_rng(0)
    return [(torch.from_numpy(rng.standard_normal(3)), i % 4) for i in range(count)]


@pytest.mark.parametrize("num_workers", [None, 0, 2])
def test_rows_come_in_order_wherever_reading_begins(num_workers):
    rows = made(23)
    source = open_source(Stream(rows), num_workers=num_workers)
    want = [(i, x.numpy(), y, "ok", "") for i, (x, y) in enumerate(rows)]
    assert len(source) == 23
    for batch_size in (1, 5, 40):
        assert_same(read_rows(source, batch_size), want)
    assert_same(read_rows(source, 4, 9, 20), want[9:20])


def test_shards_go_on_where_the_last_one_ended():
    dataset = Stream(made(20))
    source = open_source(dataset)
    read_rows(source, 5, 0, 5)
    begun = dataset.begun
    for start in (5, 10, 15):
        read_rows(source, 5, start, start + 5)
    assert dataset.begun == begun


def test_bad_rows_keep_their_index():
    rows = made(5)
    rows[1] = (torch.tensor([torch.nan, 0, 0]), 1)
    rows[2] = (rows[2][0], -1)
    rows[3] = (torch.zeros(4), 1)
    found = read_rows(open_source(Stream(rows)), 2)
    assert [row[3] for row in found] == ["ok", "non_finite", "bad_label", "unreadable", "ok"]


def test_a_data_set_that_ends_early_stops_the_run():
    dataset = Stream(made(9))
    source = open_source(dataset)
    del dataset.rows[6:]
    with pytest.raises(ValueError, match=r"ended after 6 rows, but had 9"):
        read_rows(source, 4)


def test_what_is_no_pair_stops_the_run():
    source = open_source(Stream([torch.zeros(3)]))
    with pytest.raises(ValueError, match="row 0 must be an"):
        read_rows(source, 1)


def test_the_digest_follows_the_length_and_the_first_row():
    rows = made(4)
    digests = {open_source(Stream(some)).digest() for some in (rows, rows[1:], rows[:3], [])}
    assert len(digests) == 4
    assert open_source(Stream(rows)).digest() in digests
