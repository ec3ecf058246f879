"""The versions that pyproject.toml allows, at both ends, and the next Triton.

nox --session lowest highest triton
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv"
CHECK = ("pytest", "-q", "-m", "not (slow or aot or interpreter or gpu)")
TRITON = "3.9.0"  # newer than the one that torch asks for; docs/gpu.md


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Run the quick tests with the lowest version of every requirement."""
    session.install("--resolution", "lowest-direct", ".[dev]")
    session.run(*CHECK, *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def highest(session: nox.Session) -> None:
    """Run the quick tests with the newest versions, on each Python."""
    session.install("--upgrade", ".[dev]")
    session.run(*CHECK, *session.posargs)


@nox.session(python="3.11")
def triton(session: nox.Session) -> None:
    """Interpret the kernels, and compile them ahead of time, with a Triton newer than torch's."""
    session.install("--constraint", "constraints.txt", ".[dev]")
    session.install("--no-deps", f"triton=={TRITON}")
    tests = ("pytest", "-q", "tests/kernels", *session.posargs)
    session.run(*tests, "-m", "interpreter", env={"TRITON_INTERPRET": "1"})
    session.run(*tests, "-m", "aot")
