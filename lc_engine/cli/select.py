"""`lc-engine select`: the rows to keep."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads annotations as it runs
from typing import Annotated

import typer

from lc_engine.cli.choices import Score


def select(
    scores: Annotated[Path, typer.Argument(help="Folder that `lc-engine score` wrote.")],
    keep: Annotated[
        str,
        typer.Option(
            help="How much to keep. With a decimal point a fraction in (0, 1], without one a "
            "number of rows: 0.1 is a tenth, 5000 is 5000 rows, 1.0 is everything, 1 is one row."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="subset.npy or .txt (ids), or .parquet (the rows of the score table)."),
    ],
    strategy: Annotated[str, typer.Option(help="flexrand, easy, hard, random, …")] = "flexrand",
    gamma: Annotated[
        str, typer.Option(help='FlexRand\'s split between easy and hard, in [0, 1], or "auto".')
    ] = "auto",
    by: Annotated[
        str, typer.Option(help='Column whose values share the budget, or "none" for one group.')
    ] = "label",
    features: Annotated[
        Path | None,
        typer.Option(help="A .npy of features, a row per row of the scores, if the strategy asks."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    score: Annotated[
        Score, typer.Option(help="What tells easy from hard: loss (high is hard) or lc (easy).")
    ] = Score.LOSS,
    floor: Annotated[
        int | None, typer.Option(min=0, help="Rows to keep of each group at least.")
    ] = None,
    cap: Annotated[
        int | None, typer.Option(min=0, help="Rows to keep of each group at most.")
    ] = None,
    noise_guard: Annotated[
        float,
        typer.Option(
            help="Share of each group, hard under every sub-model, to set aside first: likely "
            "wrong labels."
        ),
    ] = 0.0,
    streamed: Annotated[
        bool,
        typer.Option(
            "--streamed",
            help="Read the table piece by piece: for tables larger than memory. For easy, hard, "
            "random and flexrand; the last two draw other rows than without it.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
) -> None:
    """Choose the rows to keep: exactly the number asked for, of the rows that have a score."""
    from lc_engine.cli.options import SelectConfig

    config = SelectConfig(
        scores=scores,
        keep=_keep(keep),
        out=out,
        strategy=strategy,
        gamma="auto" if gamma == "auto" else _number("gamma", gamma),
        by=None if by == "none" else by,
        features=features,
        seed=seed,
        score=str(score),
        floor=floor,
        cap=cap,
        noise_guard=noise_guard,
        streamed=streamed,
    )
    kept, rows = config.run()
    summary = {"out": str(out), "kept": kept, "rows": rows, "keep": config.keep}
    words = f"kept {kept:,} of {rows:,} scored rows (--keep {keep}) by {strategy}: {out}"
    typer.echo(json.dumps(summary) if as_json else words)


def _keep(text: str) -> int | float:
    return int(text) if text.strip().isdigit() else _number("keep", text)


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number", param_hint=f"--{option}") from None
