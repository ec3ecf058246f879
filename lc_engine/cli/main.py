"""Entry point of `lc-engine`: an error becomes one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from lc_engine._util.extras import MissingExtraError, require
from lc_engine.cli import log
from lc_engine.cli.exit_codes import BAD_INPUT, FAILED, FINISHED
from lc_engine.cli.option_names import as_options

if TYPE_CHECKING:
    from collections.abc import Sequence

# How often an OpenMP thread looks for work before it sleeps: by default for milliseconds, in which
# neither other processes nor our own decoders of images get the core.
_SPINS: Final = "1000"


def main() -> None:
    """Run `lc-engine` with the arguments of the process."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read when torch is imported
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: what follows `lc-engine`.

    Returns:
        One of `lc_engine.cli.exit_codes`.
    """
    with log.to_stderr():
        try:
            require("typer", "cli")
            require("rich", "cli")
            from lc_engine.cli.app import app

            app(list(arguments), prog_name="lc-engine")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else FAILED
        except (ValueError, FileNotFoundError, MissingExtraError) as error:
            return _complain(error, BAD_INPUT)
        except (OSError, RuntimeError, MemoryError) as error:
            return _complain(error, FAILED)
    return FINISHED


def _complain(error: Exception, code: int) -> int:
    from lc_engine.data.faults import out_of_memory

    text = " ".join(str(error).split())
    if out_of_memory(error):
        text = (
            f"memory ran out{f' ({text})' if text else ''}: give it a smaller --batch-size, fewer "
            "--num-workers or a smaller model, or select --streamed; a stopped run continues"
        )
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    log.say_error(as_options(f"{text or type(error).__name__}{notes}"), code)
    return code
