"""The commands of `lc-engine`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lc_engine.cli import BAD_ROWS

if TYPE_CHECKING:
    from lc_engine.data.table import ScoreTable

app = typer.Typer(
    help="Score every sample of a data set by learning complexity, and choose a subset.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130


class Head(StrEnum):
    """How features become the probability of the label."""

    PROTOTYPE = "prototype"
    LINEAR = "linear"


class MaskingKind(StrEnum):
    """Which weights of a tensor go first."""

    MAGNITUDE = "magnitude"
    RANDOM = "random"


class Scope(StrEnum):
    """Over what the share of kept weights is counted."""

    GLOBAL = "global"
    LAYER = "layer"


class Weights(StrEnum):
    """Which tensors are masked."""

    BODY = "body"
    HEAD = "head"
    ALL = "all"


class Logit(StrEnum):
    """What a prototype head makes of a distance."""

    INVERSE_DISTANCE = "inverse_distance"
    NEG_SQ_DISTANCE = "neg_sq_distance"
    COSINE = "cosine"


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


@app.command()
def score(
    model: Annotated[
        str,
        typer.Option(
            help="timm/NAME, torchvision/NAME, efficientnet-lite0, package.module:factory, or, for "
            "feature sets, a checkpoint file of a linear head."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="An image folder (a sub-folder per class), a folder saved by Hugging Face "
            "datasets, or features: .parquet (file or folder) or .npy."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for the scores. A run that was stopped continues in it."),
    ],
    labels: Annotated[
        Path | None, typer.Option(help="The .npy file of labels that goes with a .npy of features.")
    ] = None,
    feature_column: Annotated[
        str | None,
        typer.Option(help="Picture or feature column.", show_default="the only one there is"),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Label column.", show_default='"label", or the only one there is'),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Local weights of the model (.safetensors, .pt).", show_default="published ones"
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels.", show_default="the model's own")
    ] = None,
    head: Annotated[
        Head | None,
        typer.Option(
            help="Class means, or the model's own classifier.",
            show_default="linear for a model that is a linear head, else prototype",
        ),
    ] = None,
    path: Annotated[
        str,
        typer.Option(
            help="Capacities: gauss:8, geometric:50:0.02, linear:50:0.02:1.0, explicit:1,.5,.2"
        ),
    ] = "gauss:8",
    masking: Annotated[
        MaskingKind, typer.Option(help="Drop the smallest weights first, or at random.")
    ] = MaskingKind.MAGNITUDE,
    scope: Annotated[
        Scope, typer.Option(help="One threshold over all weights, or one per layer.")
    ] = Scope.GLOBAL,
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="What is masked.",
            show_default="head for a model that is a linear head, else body",
        ),
    ] = None,
    mask_seed: Annotated[int, typer.Option(min=0, help="Of random masks.")] = 0,
    logit: Annotated[Logit, typer.Option(help="Of the prototype head.")] = Logit.INVERSE_DISTANCE,
    temperature: Annotated[float, typer.Option(help="Of the prototype head.")] = 1.0,
    save_path: Annotated[
        bool, typer.Option("--save-path", help="Keep the log-probability at every capacity too.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    shard_rows: Annotated[
        int, typer.Option(min=1, help="Rows per file; what a stopped run may lose.")
    ] = 65536,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Decoding threads.", show_default="one per processor")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
) -> None:
    """Score every row of a data set under all sub-models of a model.

    Writes part files, `manifest.json` and `config.json` in the folder OUT. Ends with 0 if every
    row has a score, 3 if some have not (see the column "status"), 2 if arguments or files do not
    fit.
    """
    from lc_engine.config import ScoreConfig
    from lc_engine.progress import Progress

    alone = model.endswith((".safetensors", ".pt", ".pth", ".bin"))
    config = ScoreConfig(
        model=model,
        data=data,
        out=out,
        labels=labels,
        feature_column=feature_column,
        label_column=label_column,
        checkpoint=checkpoint,
        image_size=image_size,
        head=str(head or (Head.LINEAR if alone else Head.PROTOTYPE)),
        path=path,
        masking=str(masking),
        scope=str(scope),
        weights=str(weights or (Weights.HEAD if alone else Weights.BODY)),
        mask_seed=mask_seed,
        logit=str(logit),
        temperature=temperature,
        save_path=save_path,
        batch_size=batch_size,
        shard_rows=shard_rows,
        num_workers=num_workers,
        device=device,
    )
    began = time.perf_counter()
    try:
        with Progress() as progress:
            table = config.run(progress)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command continues in {out}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    summary: dict[str, Any] = {
        "out": str(out),
        "rows": len(table),
        "status": table.status_counts(),
        "seconds": round(time.perf_counter() - began, 3),
        "rows_per_second": progress.rate,
    }
    typer.echo(json.dumps(summary) if as_json else _in_words(summary, table))
    if summary["status"]["ok"] < len(table):
        raise typer.Exit(BAD_ROWS)


def _in_words(summary: dict[str, Any], table: ScoreTable) -> str:
    counts = ", ".join(f"{count:,} {status}" for status, count in summary["status"].items())
    rate = summary["rows_per_second"]
    speed = "" if rate is None else f", {rate:,.0f} rows/s"
    lines = [f"{summary['rows']:,} rows in {summary['seconds']:.1f} s{speed}: {counts}"]
    bad = (table.column("status") != "ok").nonzero()[0]
    lines += [
        f"  row {table.column('id')[row]}: {table.column('status')[row]}: "
        f"{table.column('detail')[row]}"
        for row in bad[:3]
    ]
    if len(bad) > 3:
        lines.append(f'  and {len(bad) - 3:,} more: see the columns "status" and "detail"')
    return "\n".join([*lines, f"scores: {summary['out']}"])


@app.command()
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
) -> None:
    """Choose the rows to keep: exactly the number asked for, of the rows that have a score."""
    from lc_engine.config import SelectConfig

    config = SelectConfig(
        scores=scores,
        keep=_keep(keep),
        out=out,
        strategy=strategy,
        gamma="auto" if gamma == "auto" else _number("gamma", gamma),
        by=None if by == "none" else by,
        features=features,
        seed=seed,
    )
    kept, rows = config.run()
    summary = {"out": str(out), "kept": kept, "rows": rows, "keep": config.keep}
    words = f"kept {kept:,} of {rows:,} scored rows (--keep {keep}) by {strategy}: {out}"
    typer.echo(json.dumps(summary) if as_json else words)


@app.command()
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
    from lc_engine.demo import as_text, run
    from lc_engine.progress import Progress

    with Progress() as progress:
        outcome = run(
            out, seed=seed, say=lambda words: typer.echo(words, err=True), progress=progress
        )
    typer.echo(as_text(outcome))


def _keep(text: str) -> int | float:
    return int(text) if text.strip().isdigit() else _number("keep", text)


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number", param_hint=f"--{option}") from None
