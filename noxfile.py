"""The versions that pyproject.toml allows, at both ends, and the next Triton.

nox --session lowest highest triton
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv"
CHECK = ("python", "-m", "pytest", "-q", "-m", "not (slow or aot or interpreter or gpu)")
PIP = "pip>=26"  # fetches the real models and images, and uv leaves it out
# What the lowest versions need in turn, of their time: with a newer fsspec uv takes newer datasets
# and pyarrow, and newer click and pyparsing make typer and matplotlib warn.
OF_THEIR_TIME = ("click==8.3.3", "fsspec==2024.6.1", "pyparsing==3.2.5")
TRITON = "3.9.0"  # newer than the one that torch asks for; docs/gpu.md


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Run the quick tests with the lowest version of every requirement."""
    session.install("--resolution", "lowest-direct", "--editable", ".[dev]", PIP, *OF_THEIR_TIME)
    session.run(*CHECK, *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def highest(session: nox.Session) -> None:
    """Run the quick tests with the newest versions, on each Python."""
    session.install("--upgrade", "--editable", ".[dev]", PIP)
    session.run(*CHECK, *session.posargs)


@nox.session(python="3.11")
def triton(session: nox.Session) -> None:
    """Interpret the kernels, and compile them ahead of time, with a Triton newer than torch's."""
    session.install("--constraint", "constraints.txt", ".[dev]")
    session.install("--no-deps", f"triton=={TRITON}")
    tests = ("pytest", "-q", "tests/kernels", *session.posargs)
    session.run(*tests, "-m", "interpreter", env={"TRITON_INTERPRET": "1"})
    session.run(*tests, "-m", "aot")
