"""`lc-engine demo`: the whole way on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path, typer.Option(help="A new or empty folder, or that of an earlier demo.")
    ] = Path("demo-out"),
    seed: Annotated[
        int, typer.Option(min=0, help="Of the split, the subsets and the trainings.")
    ] = 0,
) -> None:
    """Score 5,000 real digits with a real model, train on 10 % of them, and compare.

    EfficientNet-Lite0 and the digits come with pip. Scores, subset, picture and numbers stay in
    the folder OUT.
    """
    from lc_engine.scoring.progress import Progress

    def say(words: str) -> None:
        typer.echo(words, err=True)

    with Progress() as progress:
        from lc_engine.demo import as_text, run

        text = as_text(run(out, seed=seed, say=say, progress=progress))
    typer.echo(text)
