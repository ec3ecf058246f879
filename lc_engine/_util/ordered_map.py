"""Read ahead of the consumer: a bounded pool of threads whose results come in order."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def default_workers() -> int:
    """Return how many threads decode by default: the processors this process may use, at most 8."""
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


def ordered_map(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    num_workers: int,
    ahead: int,
) -> Iterator[_Result]:
    """Apply `function` in threads and give the results in the order of `items`.

    At most `ahead` results exist that the consumer has not taken, so memory stays bounded whoever
    is faster. An exception of `function` is raised where its result would have come. When the
    consumer stops early (or fails), what has not begun is cancelled.

    Args:
        function: called with one item; with one worker the calls come in order.
        items: taken one at a time, in the consumer's thread.
        num_workers: threads; 0 calls `function` in the consumer's thread.
        ahead: results kept ready, at least 1.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="lc-read")
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
