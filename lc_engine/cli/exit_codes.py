"""Exit codes of `lc-engine`."""

from __future__ import annotations

FINISHED = 0
FAILED = 1  # a full disk, no memory on the device
BAD_INPUT = 2  # also typer's, for a command line that it does not understand
BAD_ROWS = 3  # finished, but some rows have no score
INTERRUPTED = 130
