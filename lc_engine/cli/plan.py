"""`lc-engine plan`: what a job will take, with the options of `score`."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from typing import Annotated

import typer

from lc_engine.cli import log
from lc_engine.cli.command import in_run
from lc_engine.cli.config_file import with_config
from lc_engine.cli.score_options import ConfigFile, JobOptions


@dataclass(frozen=True, kw_only=True)
class PlanCommand(JobOptions):
    """The options of `lc-engine plan`."""

    workers: Annotated[
        int, in_run(min=1, help="Machines or GPUs like this one to share the work.")
    ] = 1
    config: ConfigFile = None
    as_json: Annotated[bool, in_run("--json", help="Print the plan as one JSON object.")] = False


def plan(command: PlanCommand) -> None:
    """Say what a job will take, by scoring a few of its rows: time, memory, disk, batch size.

    Takes the options of `score`, see there, and its path unless told otherwise: for `prune`, which
    runs the whole model alone, give --path explicit:1. Budgets (--keep) and --out are for `prune`
    and `score`; nothing is written here.
    """
    from lc_engine.scoring.estimate import plan

    with with_config(command.config), log.progress() as progress:
        scorer, source = command.opened()
        progress.begin("scoring a few rows")
        found = plan(scorer, source, batch_size=command.batch_size, return_path=command.save_path)
    if command.as_json:
        typer.echo(json.dumps(found.to_dict(command.workers)))
    else:
        where = f"{command.resolved_device()}, {platform.node()}"
        typer.echo(found.in_words(command.workers, where))
