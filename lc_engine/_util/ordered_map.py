"""A bounded thread pool that works ahead of its consumer and returns results in order."""

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
    """Return the default number of decoding threads: the usable processors, at most 8."""
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


def ordered_map(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    num_workers: int,
    ahead: int,
) -> Iterator[_Result]:
    """Yield `function(item)`, computed in threads, in the order of `items`.

    At most `ahead` results are pending, so memory is bounded whether producer or consumer is
    faster. An exception of `function` is raised in place of its result. When the consumer stops
    early (or fails), calls that have not started are cancelled.

    Args:
        function: called with one item; one worker calls it in order.
        items: consumed one at a time, in the consumer's thread.
        num_workers: threads; 0 calls `function` in the consumer's thread.
        ahead: most pending results, at least 1.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="lc-read")
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
