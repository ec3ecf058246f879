"""What `lc-engine` says on stderr: lines, a bar on a terminal, or an object of JSON per line."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lc_engine.cli.option_names import as_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.scoring.progress import Progress

# Whose records are printed: ours, and Python's warnings once they are captured.
_OURS: Final = ("lc_engine", "py.warnings")


class JsonLines(logging.Formatter):
    """A record as `{"time": …, "level": …, "text": …}`, in UTC, and its `fields`: numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        text = " ".join(record.getMessage().split())
        if record.levelno >= logging.WARNING:
            text = as_options(text)
        found: dict[str, Any] = {"time": time, "level": record.levelname.lower(), "text": text}
        return json.dumps(found | getattr(record, "fields", {}))


class Lines(logging.Formatter):
    """A record as its text; a warning names options, not arguments of Python."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line or more."""
        text = super().format(record)
        return as_options(text) if record.levelno >= logging.WARNING else text


class _Told(logging.Filter):
    """Whether a warning is new to the command, which opens its data several times."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to print a record."""
        text = record.getMessage()
        if record.levelno < logging.WARNING or record.name == _OURS[0]:  # not the error at the end
            return True
        is_new = text not in self._texts
        self._texts.add(text)
        return is_new


@contextmanager
def to_stderr() -> Iterator[None]:
    """Print our log to stderr for as long as the context is open."""
    logger, handler = logging.getLogger(_OURS[0]), logging.StreamHandler(sys.stderr)
    handler.addFilter(_Told())
    handler.setFormatter(Lines())
    level, shown = logger.level, warnings.showwarning
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    _log_our_warnings()
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = shown
        for name in _OURS:
            logging.getLogger(name).removeHandler(handler)
        logger.setLevel(level)


def use_json() -> None:
    """Print the log of this command, and Python's warnings, as JSON."""
    for handler in logging.getLogger(_OURS[0]).handlers:
        handler.setFormatter(JsonLines())
        logging.getLogger(_OURS[1]).addHandler(handler)
    logging.captureWarnings(True)
    _log_our_warnings()


def _log_our_warnings() -> None:
    """Log our own warnings by their text alone: a line of our source is no news to a user."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__module__.partition(".")[0] == _OURS[0]:
            logging.getLogger(f"{_OURS[0]}.warnings").warning("%s", message)
        else:
            others(message, category, *where, **more)

    warnings.showwarning = show


def is_json() -> bool:
    """Return whether the log is printed as JSON."""
    handlers = logging.getLogger(_OURS[0]).handlers
    return any(isinstance(handler.formatter, JsonLines) for handler in handlers)


def progress(bar: bool = True) -> Progress:
    """Return the progress of a command; `bar`: whether a terminal gets one, if the log is text."""
    from lc_engine.scoring.progress import Progress

    return Progress(bar=bar and not is_json())


def say_error(text: str, code: int) -> None:
    """Print the error that ends a command with an exit code."""
    if is_json():
        logging.getLogger(_OURS[0]).error(text, extra={"fields": {"exit_code": code}})
    else:
        print(f"lc-engine: {text}", file=sys.stderr)
