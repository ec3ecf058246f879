"""The commands of `lc-engine`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import inspect
import json
import platform
import sys
import time
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from lc_engine.cli import BAD_ROWS

if TYPE_CHECKING:
    from lc_engine.config import ScoreConfig
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
    KNN = "knn"


class MaskingKind(StrEnum):
    """What makes a sub-model: which weights go first, or where it ends."""

    MAGNITUDE = "magnitude"
    RANDOM = "random"
    DROPOUT = "dropout"
    EXITS = "exits"


class Scope(StrEnum):
    """Over what the share of kept weights is counted."""

    GLOBAL = "global"
    LAYER = "layer"


class Weights(StrEnum):
    """Which tensors are masked."""

    BODY = "body"
    HEAD = "head"
    ALL = "all"


class Turns(StrEnum):
    """Which answers of a conversation count."""

    ALL = "all"
    LAST = "last"


class Dtype(StrEnum):
    """In what numbers the sub-models compute."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Score(StrEnum):
    """Which column tells easy rows from hard ones."""

    LOSS = "loss"
    LC = "lc"


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
            help="Of the sub-models; auto is the faster of float32 and bfloat16 on this machine.",
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
    config = _score_config(locals())
    from lc_engine.progress import Progress, peak_bytes

    if not on_ray and (address is not None or gpus_per_worker):
        raise typer.BadParameter("--address and --gpus-per-worker go with --ray")
    began = time.perf_counter()
    try:
        with Progress() as progress:
            if on_ray:
                from lc_engine.on_ray import score_on_ray

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


def _score_config(given: dict[str, Any]) -> ScoreConfig:
    """Make a job of the options of `score`."""
    from lc_engine.config import HEADS, ScoreConfig
    from lc_engine.data.places import to_path

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


def plan(**given: Any) -> None:
    """Say what a job will take, by scoring a few of its rows: time, memory, disk, batch size.

    Takes the options of `score`; nothing is written.
    """
    workers, as_json = given.pop("workers"), given.pop("as_json")
    config = _score_config({**given, "out": Path(), "shard_rows": None})
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
app.command()(plan)


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


@app.command()
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
    from lc_engine.progress import Progress

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


@app.command()
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
) -> None:
    """Compare the engine with the plain ways to the same scores, in one run on the same rows.

    The naive loop, the released code's order of work, torch.compile and a bfloat16 loop. Scores
    are compared first; if the engine's differ from the naive loop's, no speed is printed and the
    command ends with 1.
    """
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


def _keep(text: str) -> int | float:
    return int(text) if text.strip().isdigit() else _number("keep", text)


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number", param_hint=f"--{option}") from None
