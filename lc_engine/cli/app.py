"""The commands of `lc-engine`, a file each. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lc_engine.cli.bench import bench
from lc_engine.cli.demo import demo
from lc_engine.cli.plan import plan
from lc_engine.cli.score import score
from lc_engine.cli.select import select

app = typer.Typer(
    help="Score every sample of a data set by learning complexity, and choose a subset.",
    no_args_is_help=True,
    add_completion=False,
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
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it and end."),
    ] = False,
) -> None:
    # What pip installs as a command does not look for modules in the current folder; a model
    # given as package.module:factory is often there.
    if "" not in sys.path:
        sys.path.insert(0, "")


for command in (score, plan, select, demo, bench):
    app.command()(command)
