"""Iterators that are ahead of their consumer: by a thread, or by an item."""

from __future__ import annotations

import queue
import threading
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def one_late(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield each item once the next one is there."""
    before = list(islice(items, 1))
    for item in items:
        yield before[0]
        before = [item]
    yield from before


def read_ahead(
    items: Iterator[_Item], made: Callable[[_Item], _Result], ahead: int
) -> Iterator[_Result]:
    """Yield made(item) of each item, in order, made in one thread up to `ahead` results early.

    An exception of the iterator or of `made` is raised after the results before it. When the
    consumer stops early, the thread ends after the item that it is at, and the iterator is closed.

    Args:
        items: iterated in the thread.
        made: called there.
        ahead: most results that wait for the consumer, at least 1.
    """
    ready: queue.Queue[tuple[_Result] | BaseException | None] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(entry: tuple[_Result] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        end: BaseException | None = None
        try:
            for item in items:
                put((made(item),))
                if stopped.is_set():
                    break
        except BaseException as error:  # which is the consumer's
            end = error
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        put(end)

    thread = threading.Thread(target=work, name="lc-ahead", daemon=True)
    thread.start()
    try:
        while True:
            entry = ready.get()
            if isinstance(entry, BaseException):
                raise entry
            if entry is None:
                return
            yield entry[0]
    finally:
        stopped.set()
        thread.join()
