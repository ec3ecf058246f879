"""`lc-engine plan`: what a job will take, with the options of `score`."""

from __future__ import annotations

import inspect
import json
import platform
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from lc_engine.cli.score import score, score_config


def plan(**given: Any) -> None:
    """Say what a job will take, by scoring a few of its rows: time, memory, disk, batch size.

    Takes the options of `score`; nothing is written.
    """
    workers, as_json = given.pop("workers"), given.pop("as_json")
    config = score_config({**given, "out": Path(), "shard_rows": None})
    found = config.plan()
    if as_json:
        typer.echo(json.dumps(found.to_dict(workers)))
    else:
        typer.echo(found.in_words(workers, f"{config.device}, {platform.node()}"))


def _options_of_score() -> None:
    """Give `plan` the options of `score` but for those of its output and its workers."""
    left_out = ("out", "shard_rows", "on_ray", "address", "gpus_per_worker")
    kinds = get_type_hints(score, include_extras=True)
    options = [
        option.replace(kind=option.KEYWORD_ONLY, annotation=kinds[name])
        for name, option in inspect.signature(score).parameters.items()
        if name not in left_out
    ]
    workers = inspect.Parameter(
        "workers",
        inspect.Parameter.KEYWORD_ONLY,
        default=1,
        annotation=Annotated[
            int, typer.Option(min=1, help="Machines or GPUs like this one to share the work.")
        ],
    )
    options.append(workers)
    plan.__annotations__ = {option.name: option.annotation for option in options}
    plan.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]


_options_of_score()
