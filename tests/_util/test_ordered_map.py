from __future__ import annotations

import threading
import time

import pytest

from lc_engine._util.ordered_map import default_workers, ordered_map


@pytest.mark.parametrize("num_workers", [0, 1, 4])
@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_results_come_in_order(num_workers, ahead):
    def slow_at_first(item):
        time.sleep(0.002 if item < 5 else 0)
        return item * item

    results = ordered_map(slow_at_first, range(40), num_workers, ahead)
    assert list(results) == [i * i for i in range(40)]


def test_it_stays_ahead_but_not_further():
    taken = []
    results = ordered_map(lambda item: item, (taken.append(i) or i for i in range(99)), 2, 5)
    assert next(results) == 0
    assert len(taken) == 5
    assert next(results) == 1
    assert len(taken) == 6
    results.close()


def test_several_threads_work_at_once():
    meet = threading.Barrier(3, timeout=10)
    assert len(list(ordered_map(lambda _: meet.wait(), range(3), 3, 3))) == 3


def test_an_error_comes_where_its_result_would_have():
    def fail(item):
        if item == 3:
            raise RuntimeError("three")
        return item

    results = ordered_map(fail, range(9), 2, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="three"):
        next(results)


def test_default_workers():
    assert 1 <= default_workers() <= 8
