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
    language: Annotated[
        bool, typer.Option("--language", help="Real conversations in place of the digits.")
    ] = False,
) -> None:
    """Score 5,000 real digits with a real model, train on 10 % of them, and compare.

    EfficientNet-Lite0 and the digits come with pip. Scores, subset, picture and numbers stay in
    the folder OUT. With --language, SmolLM2-135M scores 400 real conversations, and a plain loop
    is beside it.
    """
    from lc_engine.scoring.progress import Progress

    def say(words: str) -> None:
        typer.echo(words, err=True)

    with Progress() as progress:
        if language:
            from lc_engine.demo.language import run_language
            from lc_engine.demo.language_summary import language_text

            text = language_text(run_language(out, seed=seed, say=say, progress=progress))
        else:
            from lc_engine.demo import as_text, run

            text = as_text(run(out, seed=seed, say=say, progress=progress))
    typer.echo(text)
