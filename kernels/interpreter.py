"""Whether Triton interprets its kernels. Imports nothing, so it works where Triton is missing."""

from __future__ import annotations

import os


def interpreting() -> bool:
    """Return whether Triton kernels run in the interpreter, on host tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("0", "", "false")
