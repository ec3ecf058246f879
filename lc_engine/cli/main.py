"""The command line's door: what goes wrong becomes one line and an exit code."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lc_engine._util.extras import MissingExtraError, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Exit codes. 2 is also what typer gives for a command line that it does not understand.
FINISHED = 0
FAILED = 1
BAD_INPUT = 2
BAD_ROWS = 3


def main() -> None:
    """Run `lc-engine` with the arguments of the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: what follows `lc-engine`.

    Returns:
        0 all well, 1 the machine failed (a full disk, no memory on the device), 2 arguments or
        input that do not fit, 3 finished, but some rows could not be scored; 130 interrupted.
    """
    try:
        require("typer", "cli")
        require("rich", "cli")
        from lc_engine.cli.app import app

        with _log_to_stderr():
            app(list(arguments), prog_name="lc-engine")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except (ValueError, FileNotFoundError, MissingExtraError) as error:
        return _complain(error, BAD_INPUT)
    except (OSError, RuntimeError, MemoryError) as error:
        return _complain(error, FAILED)
    return FINISHED


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    logger, handler = logging.getLogger("lc_engine"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _complain(error: Exception, code: int) -> int:
    print("lc-engine: " + " ".join(str(error).split()), file=sys.stderr)
    return code
