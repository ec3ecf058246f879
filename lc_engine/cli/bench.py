"""`lc-engine bench`: the engine beside the plain ways to the same scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    model: Annotated[
        str | None,
        typer.Option(
            help="A backbone, a checkpoint file of a linear head, or a language model, as `score` "
            "takes it.",
            show_default="the demo's",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Pictures, features or instructions, by the model.", show_default="the demo's"
        ),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="As in `score`.")] = None,
    feature_column: Annotated[str | None, typer.Option(help="As in `score`.")] = None,
    label_column: Annotated[str | None, typer.Option(help="As in `score`.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="As in `score`.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="As in `score`.")] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="As in `score`.",
            show_default="gauss:8; of a head geometric:50:0.02; of a language model "
            "gauss:8:0.7:1.0",
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Rows that every way scores.",
            show_default="128; for a head 4,096, for a language model 32",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every way; medians are given.")] = 3,
    keep: Annotated[float, typer.Option(help="Fraction whose choice is compared.")] = 0.1,
    out: Annotated[Path, typer.Option(help="JSON file of all that was measured.")] = Path(
        "bench.json"
    ),
    language: Annotated[
        bool,
        typer.Option("--language", help="The demo's are then SmolLM2-135M and real conversations."),
    ] = False,
    roofline: Annotated[
        bool,
        typer.Option(
            "--roofline",
            help="Only say what every operator's launch takes on four GPUs at least, and what it "
            "takes here, if there is one.",
        ),
    ] = False,
) -> None:
    """Compare the engine with the plain ways to the same scores, in one run on the same rows.

    The naive loop, the released code's order of work, torch.compile and a bfloat16 loop. Scores
    are compared first; if the engine's differ from the naive loop's, no speed is printed and the
    command ends with 1.
    """
    if roofline:
        from lc_engine.bench.roofline import roofline as table

        typer.echo(table())
        return
    from lc_engine.bench.config import BenchConfig

    config = BenchConfig(
        model=model,
        data=data,
        labels=labels,
        feature_column=feature_column,
        label_column=label_column,
        checkpoint=checkpoint,
        image_size=image_size,
        path=path,
        rows=rows,
        rounds=rounds,
        keep=keep,
        out=out,
        language=language,
    )
    typer.echo(config.run(lambda words: typer.echo(words, err=True)))
