"""The versions that pyproject.toml allows, at both ends: `nox --session lowest highest`."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv"
CHECK = ("pytest", "-q", "-m", "not (slow or aot or interpreter or gpu)")


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
