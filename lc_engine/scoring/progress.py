"""Progress of a long job: a bar on a terminal, a line every ten seconds anywhere else."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lc_engine._util.extras import MissingExtraError, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from lc_engine.data.protocols import Progress as Callback

_log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """What `lc_engine.score` takes as `progress`: called as progress(phase, rows done, rows).

    A context manager. Off a terminal a thread sees to it that ten seconds do not pass without a
    line, also in a phase that has no rows to count and between two calls.

    Args:
        line: prints a line; None for the log, where a line that counts rows has them as fields
            too (`record.fields`).
        every: seconds between two lines.
        bar: whether a terminal gets a bar, and not lines too.

    Attributes:
        rate: rows per second of the last phase, None before its second batch. The first batch
            (and what a run that continues found done) counts neither as rows nor as time.
        waiting: share of the time since then that the job waited for data, None before.
    """

    def __init__(
        self,
        line: Callable[[str], None] | None = None,
        *,
        every: float = SECONDS_BETWEEN_LINES,
        bar: bool = True,
    ) -> None:
        self.rate: float | None = None
        self.waiting: float | None = None
        self._line, self._every, self._wants_bar = line, every, bar
        self._waited = 0.0
        self._phase = ""
        self._rows: tuple[int, int] | None = None
        self._first = (0, 0.0)
        self._last_line = 0.0
        self._bar: Any = None
        self._task: Any = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="lc-progress", daemon=True)

    def __enter__(self) -> Progress:
        self._bar = _bar() if self._wants_bar and sys.stderr.isatty() else None
        self.begin("opening model and data")
        if self._bar is None:
            self._heartbeat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()
        else:
            self._heartbeat.join()

    def begin(self, phase: str) -> None:
        """Enter a phase whose rows are not counted, or not yet."""
        with self._lock:
            self._enter(phase, None)

    def announce(self, phase: str) -> None:
        """Print the name of a phase, and enter it; later lines have what is before its colon."""
        with self._lock:
            self._say(phase)
            self._enter(phase.partition(":")[0], None)

    def note(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        with self._lock:
            if self._bar is None:
                self._say(line)
            else:
                self._bar.console.print(line, markup=False, highlight=False)

    def waited(self, seconds: float) -> None:
        """Add the time that a batch was waited for."""
        self._waited += seconds

    def __call__(self, phase: str, done: int, rows: int) -> None:
        """Record that `done` of `rows` rows are through `phase`."""
        now = time.monotonic()
        with self._lock:
            if phase != self._phase or self._rows is None:
                self._enter(phase, (done, rows))
            elif now > self._first[1]:
                self._rows = (done, rows)
                self.rate = (done - self._first[0]) / (now - self._first[1])
                self.waiting = self._waited / (now - self._first[1])
            if self._bar is not None:
                words = "" if self.rate is None else f"{speed(self.rate)}, {self._waits()}"
                self._bar.update(self._task, completed=done, speed=words)
            elif self.rate and now - self._last_line >= self._every:
                self._print(now)

    def _enter(self, phase: str, rows: tuple[int, int] | None) -> None:
        now = time.monotonic()
        if self._bar is not None:
            if self._task is not None and self._rows is None:
                self._bar.remove_task(self._task)
            total = None if rows is None else rows[1]
            self._task = self._bar.add_task(phase, total=total, speed="")
        self._phase, self._rows = phase, rows
        self._first = (rows[0] if rows else 0, now)
        self._last_line = now
        self._waited, self.rate, self.waiting = 0.0, None, None

    def _beat(self) -> None:
        """Print a line whenever there has been none for a while."""
        pause = self._every
        while not self._ended.wait(pause):
            with self._lock:
                now = time.monotonic()
                pause = self._last_line + self._every - now
                if pause <= 0:
                    pause = self._every
                    self._print(now)

    def _print(self, now: float) -> None:
        self._last_line = now
        fields: dict[str, Any] = {"phase": self._phase}
        if self._rows is None:
            rest = f"{duration(now - self._first[1])} so far"
        else:
            done, rows = self._rows
            rest = f"{done:,} of {rows:,} rows, {self._speed(done, rows, now)}"
            fields |= {"done": done, "rows": rows, "rows_per_second": self.rate}
            fields |= {"waiting_for_data": self.waiting, "peak_bytes": peak_bytes()}
        self._say(f"{self._phase}: {rest}", fields)

    def _say(self, text: str, fields: dict[str, Any] | None = None) -> None:
        if self._line is None:
            _log.info(text, extra={"fields": fields or {}})
        else:
            self._line(text)

    def _speed(self, done: int, rows: int, now: float) -> str:
        if not self.rate:
            return f"{duration(now - self._first[1])} so far"
        return (
            f"{speed(self.rate)}, {duration((rows - done) / self.rate)} left, "
            f"{self._waits()}, peak {peak_bytes() / 2**20:,.0f} MiB"
        )

    def _waits(self) -> str:
        return f"{self.waiting or 0.0:.0%} waiting for data"


@contextmanager
def reporting(progress: Callback | Literal[False] | None) -> Iterator[Callback | None]:
    """Yield what a job reports to.

    Args:
        progress: a callback, which is yielded as it is; False for none; None for a `Progress` on
            stderr if that is a terminal or the output of a notebook, else for none.
    """
    if progress is None and (sys.stderr.isatty() or _in_notebook()):
        with Progress(_to_stderr) as own:
            yield own
    else:
        yield progress or None


def _bar() -> Any:
    """Return a bar that is running on stderr; None where there is none to be had."""
    try:
        rich = require("rich.progress", "cli")
    except MissingExtraError:  # lc_engine.score in Python does without
        return None
    bar = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[speed]}"),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        console=require("rich.console", "cli").Console(stderr=True),
    )
    try:
        bar.start()
    except require("rich.errors", "cli").LiveError:  # a bar of the caller's is on this terminal
        return None
    return bar


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


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


def speed(rate: float) -> str:
    """Write rows per second, slow ones to two digits."""
    return f"{rate:,.0f} rows/s" if rate >= 9.5 else f"{rate:.2g} rows/s"
