"""`lc-engine bench`: the engine beside the plain ways to the same scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from lc_engine.cli import log
from lc_engine.cli.bench_options import BenchOptions
from lc_engine.cli.command import in_run


@dataclass(frozen=True, kw_only=True)
class BenchCommand(BenchOptions):
    """The options of `lc-engine bench`."""

    roofline: Annotated[
        bool, in_run("--roofline", help="Only print the floor of every GPU launch, and its time.")
    ] = False


def bench(command: BenchCommand) -> None:
    """Compare the engine with the plain ways to the same scores, in one run on the same rows.

    The naive loop, the released code's order of work, torch.compile and a bfloat16 loop. Scores
    are compared first; if the engine's differ from the naive loop's, no speed is printed and the
    command ends with 1.
    """
    if command.roofline:
        from lc_engine.bench.roofline import roofline

        typer.echo(roofline())
        return

    with log.progress(bar=False) as progress:  # a bar would be drawn while others are timed
        text = command.run(progress.announce)
    typer.echo(text)
