"""Progress of a long job: a bar on a terminal, a log line now and then anywhere else."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine._util.extras import require

if TYPE_CHECKING:
    from types import TracebackType

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """What `lc_engine.score` takes as `progress`: called as progress(phase, rows done, rows).

    Attributes:
        rate: rows per second of the last phase, None before its second batch. The first batch
            (and what a run that continues found done) counts neither as rows nor as time.
        waiting: share of the time since then that the job waited for data, None before.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self.waiting: float | None = None
        self._waited = 0.0
        self._phase = ""
        self._first = (0, 0.0)
        self._last_line = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            rich = require("rich.progress", "cli")
            console = require("rich.console", "cli").Console(stderr=True)
            self._bar = rich.Progress(
                rich.TextColumn("{task.description}"),
                rich.BarColumn(),
                rich.MofNCompleteColumn(),
                rich.TextColumn("{task.fields[speed]}"),
                rich.TimeRemainingColumn(),
                console=console,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def waited(self, seconds: float) -> None:
        """Take note that a batch was waited for."""
        self._waited += seconds

    def __call__(self, phase: str, done: int, rows: int) -> None:
        """Take note that `done` of `rows` rows are through `phase`."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._first, self._last_line, self.rate = phase, (done, now), now, None
            self._waited, self.waiting = 0.0, None
            if self._bar is not None:
                self._task = self._bar.add_task(phase, total=rows, speed="")
        elif now > self._first[1]:
            self.rate = (done - self._first[0]) / (now - self._first[1])
            self.waiting = self._waited / (now - self._first[1])
        if self._bar is not None:
            speed = "" if self.rate is None else f"{self.rate:,.0f} rows/s, {self._waits()}"
            self._bar.update(self._task, completed=done, speed=speed)
        elif self.rate and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (rows - done) / self.rate
            _log.info(
                "%s: %s of %s rows, %s rows/s, %s left, %s, peak %s MiB",
                phase,
                f"{done:,}",
                f"{rows:,}",
                f"{self.rate:,.0f}",
                duration(left),
                self._waits(),
                f"{peak_bytes() / 2**20:,.0f}",
            )

    def _waits(self) -> str:
        return f"{self.waiting or 0.0:.0%} waiting for data"


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts what the parent had before this was a process
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) << 10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def duration(seconds: float) -> str:
    """Write a time as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
