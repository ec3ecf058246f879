"""Iterators that are ahead of their consumer."""

from __future__ import annotations

import itertools
import threading

import pytest

from lc_engine._util.read_ahead import one_late, read_ahead


def test_results_come_in_order_from_one_other_thread():
    threads = set()

    def made(item):
        threads.add(threading.get_ident())
        return 2 * item

    assert list(read_ahead(iter(range(50)), made, 3)) == list(range(0, 100, 2))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_no_more_results_are_made_early_than_asked_for():
    made = []
    reached = threading.Event()

    def note(item):
        made.append(item)
        if item == 3:
            reached.set()
        return item

    results = read_ahead(itertools.count(), note, 2)
    assert next(results) == 0
    assert reached.wait(10)  # 1 and 2 wait for the consumer, 3 for room
    threading.Event().wait(0.05)
    assert made == [0, 1, 2, 3]
    results.close()


@pytest.mark.parametrize("in_items", [True, False])
def test_an_error_comes_after_the_results_before_it(in_items):
    def items():
        yield from (0, 1)
        if in_items:
            raise KeyError("at 2")
        yield 2

    def made(item):
        if item == 2:
            raise KeyError("at 2")
        return item

    found = []
    with pytest.raises(KeyError, match="at 2"):
        found.extend(read_ahead(items(), made, 1))
    results = read_ahead(items(), made, 5)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError):
        next(results)


def test_a_consumer_that_stops_ends_the_thread_and_closes_the_iterator():
    closed = []

    def items():
        try:
            yield from itertools.count()
        finally:
            closed.append(threading.current_thread().name)

    results = read_ahead(items(), lambda item: item, 1)
    assert next(results) == 0
    results.close()
    assert closed == ["lc-ahead"]
    assert not any(thread.name == "lc-ahead" for thread in threading.enumerate())


def test_one_late_yields_an_item_once_the_next_is_there():
    asked = []

    def items(count):
        for item in range(count):
            asked.append(item)
            yield item

    for count in (0, 1, 2, 5):
        asked.clear()
        for item in one_late(items(count)):
            assert asked == list(range(min(count, item + 2)))
        assert len(asked) == count
