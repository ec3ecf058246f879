"""Peak memory of a piece of work above what was resident before it."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_STATUS = Path("/proc/self/status")
# Writing 5 here sets the peak back to what is resident now (Linux, proc(5)).
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures the peak of resident memory above the start; only where Linux reports it.

    Within its context the garbage collector leaves alone what was there before, which it would
    otherwise visit again before every measurement.
    """

    def __init__(self) -> None:
        self._trim = _malloc_trim()
        self.known = self._reset()

    def __enter__(self) -> PeakMemory:
        gc.collect()
        gc.freeze()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        gc.unfreeze()

    def settle(self) -> int:
        """Free what is not used, start again, and return the bytes resident now."""
        if not self.known:
            return 0
        gc.collect()
        if self._trim is not None:
            self._trim(0)
        self._reset()
        return _field("VmRSS")

    def above(self, start: int) -> int | None:
        """Return the bytes of the peak above `start`, None where it is not known."""
        return max(0, _field("VmHWM") - start) if self.known else None

    def _reset(self) -> bool:
        try:
            _CLEAR.write_text("5")
        except OSError:
            return False
        return True


def _field(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"{_STATUS} has no {name}")


def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function that returns free memory to the system; other libraries have none."""
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
