"""The commands of `lc-engine`, a file each. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from lc_engine.cli.bench import BenchCommand, bench
from lc_engine.cli.command import Command, command
from lc_engine.cli.demo import DemoCommand, demo
from lc_engine.cli.log import use_json
from lc_engine.cli.plan import PlanCommand, plan
from lc_engine.cli.prune import PruneCommand, prune
from lc_engine.cli.report import ReportCommand, report
from lc_engine.cli.score import ScoreCommand, score
from lc_engine.cli.select import SelectCommand, select

app = typer.Typer(
    help="Score every sample of a data set by learning complexity, and choose a subset.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"lc-engine {version('lc_engine')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
    log: Annotated[
        Literal["text", "json"],
        typer.Option(
            help="What is said on stderr as lines of text or, for schedulers, a JSON object a line."
        ),
    ] = "text",
) -> None:
    if log == "json":
        use_json()
    # An installed command does not look for modules in the current folder, where the module of
    # package.module:factory often is.
    if "" not in sys.path:
        sys.path.insert(0, "")


app.command(cls=Command)(command(PruneCommand, prune))
app.command(cls=Command)(command(ScoreCommand, score))
app.command(cls=Command)(command(PlanCommand, plan))
app.command(cls=Command)(command(SelectCommand, select))
app.command(cls=Command)(command(ReportCommand, report))
app.command(cls=Command)(command(DemoCommand, demo))
app.command(cls=Command)(command(BenchCommand, bench))
