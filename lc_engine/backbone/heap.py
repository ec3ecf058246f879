"""Heap: on Linux, memory that a forward frees stays with the process for the next forward.

The C library (glibc) gives large blocks back to the system, which clears every page anew when it is
asked again. The forwards of K sub-models ask for the same blocks over and over: that took 5 to 25 %
of their time.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of malloc.h: from how many free bytes on the end of the heap is given back, and from what size on
# a block comes from the system and goes back to it.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEPING = {_TRIM_THRESHOLD: (1 << 31) - 1, _MMAP_THRESHOLD: 1 << 30}
# What glibc comes to by itself in a process that has freed blocks of 32 MiB, but that what a part
# of a batch takes is there when the next forward begins: 3 % of a run with six sub-models.
_AFTERWARDS = {_TRIM_THRESHOLD: 256 << 20, _MMAP_THRESHOLD: 32 << 20}

_lock = threading.Lock()
_keeping = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep what is freed meanwhile; afterwards free memory goes back, but for up to 256 MiB.

    Nothing happens without glibc, or where the environment sets its allocator (MALLOC_…,
    GLIBC_TUNABLES). The setting is the process's: threads that enter share it.
    """
    library = _glibc()
    if library is None:
        yield
        return
    _count(library, 1)
    try:
        yield
    finally:
        _count(library, -1)


def _count(library: Any, step: int) -> None:
    """Count those who are inside; the first and the last change the setting."""
    global _keeping
    with _lock:
        _keeping += step
        if _keeping == max(step, 0):
            for name, value in (_KEEPING if _keeping else _AFTERWARDS).items():
                library.mallopt(name, value)


@functools.cache
def _glibc() -> Any:
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no such handle
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
