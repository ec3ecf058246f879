"""`lc-engine demo`: the whole way on real data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lc_engine.cli import log
from lc_engine.cli.command import in_run


@dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """The options of `lc-engine demo`."""

    out: Annotated[Path, in_run(help="A new or empty folder, or that of an earlier demo.")] = Path(
        "demo-out"
    )
    seed: Annotated[
        int, in_run(min=0, help="Seed of the split, the subsets and the trainings.")
    ] = 0


def demo(command: DemoCommand) -> None:
    """Score 4,000 real digits with a real model, train on 10 % of them, and compare.

    EfficientNet-Lite0 and the digits come with pip. Scores, subset, image and numbers stay in the
    folder --out.
    """
    from lc_engine.demo import as_text, run

    with log.progress(bar=False) as progress:  # a bar would be drawn while others are timed
        outcome = run(command.out, seed=command.seed, say=progress.announce, progress=progress)
    typer.echo(as_text(outcome))
