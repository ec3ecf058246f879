"""Progress of a long job: a bar on a terminal, a log line now and then anywhere else."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from lc_engine.extras import require

if TYPE_CHECKING:
    from types import TracebackType

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """What `lc_engine.score` takes as `progress`: called as progress(phase, rows done, rows).

    Attributes:
        rate: rows per second of the last phase, None before its second batch. The first batch
            (and what a run that continues found done) counts neither as rows nor as time.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
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

    def __call__(self, phase: str, done: int, rows: int) -> None:
        """Take note that `done` of `rows` rows are through `phase`."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._first, self._last_line, self.rate = phase, (done, now), now, None
            if self._bar is not None:
                self._task = self._bar.add_task(phase, total=rows, speed="")
        elif now > self._first[1]:
            self.rate = (done - self._first[0]) / (now - self._first[1])
        if self._bar is not None:
            speed = "" if self.rate is None else f"{self.rate:,.0f} rows/s"
            self._bar.update(self._task, completed=done, speed=speed)
        elif self.rate and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (rows - done) / self.rate
            _log.info(
                "%s: %s of %s rows, %s rows/s, %s left",
                phase,
                f"{done:,}",
                f"{rows:,}",
                f"{self.rate:,.0f}",
                _duration(left),
            )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
