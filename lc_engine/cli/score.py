"""`lc-engine score`: every row of a data set under all sub-models of a model."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lc_engine.cli.choices import Dtype, Head, Logit, MaskingKind, Scope, Turns, Weights
from lc_engine.cli.main import BAD_ROWS

if TYPE_CHECKING:
    from lc_engine.cli.options import ScoreConfig
    from lc_engine.data.table import ScoreTable

INTERRUPTED = 130


def score(
    model: Annotated[
        str,
        typer.Option(
            help="timm/NAME, torchvision/NAME, efficientnet-lite0, package.module:factory; for "
            "feature sets a checkpoint file of a linear head; for instruction sets the folder or "
            ".gguf file of a causal language model."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Pictures: a folder with a sub-folder per class, .tar (WebDataset) or .parquet. "
            "Features: .npy, .safetensors, .parquet, .jsonl. Instructions: .jsonl, .json, "
            ".parquet. Or a folder saved by Hugging Face datasets. Of .tar and .parquet also a "
            "folder of them, or a URL."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for the scores. A run that was stopped continues in it."),
    ] = Path("scores"),
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
            help="Class means, the model's own classifier, or the nearest other rows.",
            show_default="linear for a model that is a linear head, else prototype",
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="Capacities: gauss:8, geometric:50:0.02, linear:50:0.02:1.0, "
            "clenshaw_curtis:9:0.02:1.0, explicit:1,.5,.2; with ~5 behind it, 5 points for all of "
            "them, with ~fit8 the 8 of them that stand for all on a sample of the data; "
            "calibrated:8 for points where the model's confidence falls.",
            show_default="gauss:8; of a language model gauss:8:0.7:1.0, of its dropout "
            "linear:9:0.1:0.9",
        ),
    ] = None,
    masking: Annotated[
        MaskingKind,
        typer.Option(
            help="Drop the smallest weights first, or at random; or inputs at random; or end after "
            "each block."
        ),
    ] = MaskingKind.MAGNITUDE,
    scope: Annotated[
        Scope | None,
        typer.Option(
            help="One threshold over all weights, or one per layer.",
            show_default="layer for a language model, else global",
        ),
    ] = None,
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
    neighbours: Annotated[int, typer.Option(min=1, help="Of the kNN head.")] = 10,
    tol: Annotated[
        float | None,
        typer.Option(
            help="Error in lc that a row may have, of a Clenshaw-Curtis path: no more points than "
            "that takes.",
            show_default="all points for all rows",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="Of instructions: alpaca, sharegpt, messages or prompt_completion.",
            show_default="told by the fields",
        ),
    ] = None,
    turns: Annotated[Turns, typer.Option(help="Which answers of a conversation count.")] = (
        Turns.ALL
    ),
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=2, help="Longest conversation; its end is cut.", show_default="the model's window"
        ),
    ] = None,
    ifd: Annotated[
        bool, typer.Option("--ifd", help="Add the instruction-following difficulty.")
    ] = False,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            help="Of the sub-models; auto is the faster of float32 and bfloat16 on this machine, "
            "int8 multiplies linear layers and convolutions in 8 bits.",
            show_default="the model's own; of a language model auto",
        ),
    ] = None,
    save_path: Annotated[
        bool, typer.Option("--save-path", help="Keep the log-probability at every capacity too.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows at a time.", show_default="by the data")
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rows per file; what a stopped run may lose.", show_default="by the data"
        ),
    ] = None,
    num_workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Decoding threads; with --ray the workers on the cluster.",
            show_default="one per processor; one worker",
        ),
    ] = None,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="Share the work out on a Ray cluster.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="Of the cluster.", show_default="RAY_ADDRESS, or here")
    ] = None,
    gpus_per_worker: Annotated[float, typer.Option(min=0.0, help="With --ray.")] = 0.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
) -> None:
    """Score every row of a data set under all sub-models of a model.

    Writes part files, `manifest.json` and `config.json` in the folder OUT. Ends with 0 if every
    row has a score, 3 if some have not (see the column "status") or a file of the data had to be
    left out, 2 if arguments or files do not fit.
    """
    config = score_config(locals())
    from lc_engine.scoring.progress import Progress, peak_bytes

    if not on_ray and (address is not None or gpus_per_worker):
        raise typer.BadParameter("--address and --gpus-per-worker go with --ray")
    began = time.perf_counter()
    try:
        with Progress() as progress:
            if on_ray:
                from lc_engine.cli.ray import score_on_ray

                table, refused = score_on_ray(
                    config,
                    address=address,
                    num_workers=1 if num_workers is None else num_workers,
                    gpus_per_worker=gpus_per_worker,
                )
            else:
                table, refused = config.run(progress)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command continues in {out}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    summary: dict[str, Any] = {
        "out": str(out),
        "rows": len(table),
        "status": table.status_counts(),
        "refused": refused,
        "seconds": round(time.perf_counter() - began, 3),
        "rows_per_second": progress.rate,
        "waiting_for_data": progress.waiting,
        "peak_bytes": peak_bytes(),
    }
    typer.echo(json.dumps(summary) if as_json else _in_words(summary, table))
    if refused or summary["status"]["ok"] < len(table):
        raise typer.Exit(BAD_ROWS)


def score_config(given: dict[str, Any]) -> ScoreConfig:
    """Make a job of the options of `score`."""
    from lc_engine.cli.options import HEADS, ScoreConfig
    from lc_engine.data.locations import to_path

    known = {field.name for field in fields(ScoreConfig)}
    options: dict[str, Any] = {
        name: str(value) if isinstance(value, StrEnum) else value
        for name, value in given.items()
        if name in known
    }
    options["data"] = to_path(options["data"])
    alone = options["model"].endswith(HEADS)
    options["head"] = options["head"] or str(Head.LINEAR if alone else Head.PROTOTYPE)
    options["weights"] = options["weights"] or str(Weights.HEAD if alone else Weights.BODY)
    if given.get("on_ray"):
        options["num_workers"] = None  # which are Ray's then
    return ScoreConfig(**options)


def _in_words(summary: dict[str, Any], table: ScoreTable) -> str:
    counts = ", ".join(f"{count:,} {status}" for status, count in summary["status"].items())
    rate = summary["rows_per_second"]
    speed = "" if rate is None else f", {rate:,.0f} rows/s"
    memory = f"peak memory {summary['peak_bytes'] / 2**20:,.0f} MiB"
    lines = [f"{summary['rows']:,} rows in {summary['seconds']:.1f} s{speed}: {counts}; {memory}"]
    lines += [f"  row {row}: {status}: {detail}" for row, status, detail in table.bad_rows(3)]
    bad = summary["rows"] - summary["status"]["ok"]
    if bad > 3:
        lines.append(f'  and {bad - 3:,} more: see the columns "status" and "detail"')
    lines += [f"file left out: {reason}" for reason in summary["refused"].values()]
    return "\n".join([*lines, f"scores: {summary['out']}"])
