"""`lc-engine score`: every row of a data set under all sub-models of a model."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lc_engine.cli import log
from lc_engine.cli.command import in_run
from lc_engine.cli.config_file import with_config
from lc_engine.cli.exit_codes import BAD_ROWS, INTERRUPTED
from lc_engine.cli.score_options import ConfigFile, ScoreOptions

if TYPE_CHECKING:
    from lc_engine.data.table import ScoreTable
    from lc_engine.scoring.progress import Progress


@dataclass(frozen=True, kw_only=True)
class ScoreCommand(ScoreOptions):
    """The options of `lc-engine score`."""

    config: ConfigFile = None
    on_ray: Annotated[bool, in_run("--ray", help="Share the work on a Ray cluster.")] = False
    address: Annotated[
        str | None, in_run(help="Of the Ray cluster.", show_default="RAY_ADDRESS, or here")
    ] = None
    gpus_per_worker: Annotated[float, in_run(min=0.0, help="GPUs of a Ray worker, or a part.")] = (
        0.0
    )
    as_json: Annotated[bool, in_run("--json", help="Print the summary as one JSON object.")] = False


def score(command: ScoreCommand) -> None:
    """Score every row of a data set under all sub-models of a model.

    **Models**: timm/NAME, torchvision/NAME, efficientnet-lite0, package.module:factory; for
    features the checkpoint of a linear head; for instructions the folder or .gguf file of a causal
    language model.

    **Data**: of images a folder with a sub-folder per class, .tar (WebDataset) or .parquet; of
    features .npy, .safetensors, .parquet or .jsonl; of instructions .jsonl, .json or .parquet; or a
    folder saved by Hugging Face datasets. Of .tar and .parquet also a folder of them, or a URL.

    **Paths**: gauss:8, geometric:50:0.02, linear:50:0.02:1.0, clenshaw_curtis:9:0.02:1.0,
    explicit:1,.5,.2. With ~5 behind it 5 points stand for all of them, with ~fit8 the 8 that do so
    on a sample of the data; calibrated:8 puts 8 where the model's confidence falls.

    Writes part files, _manifest.json and _config.json in the folder --out. Ends with 0 if every row
    has a score, 3 if some have none (see the column "status") or a file of the data was left out, 2
    if arguments or files do not fit.
    """
    from lc_engine.scoring.progress import peak_bytes

    if not command.on_ray and (command.address is not None or command.gpus_per_worker):
        raise typer.BadParameter("--address and --gpus-per-worker go with --ray")
    began, continues = time.perf_counter(), any(command.out.glob("part-*.parquet"))
    try:
        with with_config(command.config), log.progress() as progress:
            table, refused = _scored(command, progress)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command continues in {command.out}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    seconds = time.perf_counter() - began
    # The last phase says nothing of the whole where all sub-models ran in an earlier one; rows that
    # were found done took no time.
    rate = progress.rate if continues else len(table) / seconds
    summary: dict[str, Any] = {
        "out": str(command.out),
        "rows": len(table),
        "status": table.status_counts(),
        "refused": refused,
        "seconds": round(seconds, 3),
        "rows_per_second": rate,
        "waiting_for_data": progress.waiting,
        "peak_bytes": peak_bytes(),
    }
    typer.echo(json.dumps(summary) if command.as_json else _in_words(summary, table))
    if refused or summary["status"]["ok"] < len(table):
        raise typer.Exit(BAD_ROWS)


def _scored(command: ScoreCommand, progress: Progress) -> tuple[ScoreTable, dict[str, str]]:
    if not command.on_ray:
        return command.run(progress)
    from lc_engine.cli.ray import score_on_ray

    progress.begin("scoring on Ray")
    return score_on_ray(
        replace(command, num_workers=None),
        address=command.address,
        num_workers=1 if command.num_workers is None else command.num_workers,
        gpus_per_worker=command.gpus_per_worker,
    )


def _in_words(summary: dict[str, Any], table: ScoreTable) -> str:
    from lc_engine.data.unscored import first_reasons
    from lc_engine.scoring.progress import speed

    counts = ", ".join(f"{count:,} {status}" for status, count in summary["status"].items())
    rate = summary["rows_per_second"]
    at = "" if rate is None else f", {speed(rate)}"
    memory = f"peak memory {summary['peak_bytes'] / 2**20:,.0f} MiB"
    lines = [f"{summary['rows']:,} rows in {summary['seconds']:.1f} s{at}: {counts}; {memory}"]
    reasons = first_reasons(table)
    lines += reasons
    if summary["rows"] - summary["status"]["ok"] > len(reasons):
        lines.append('  each row: see the columns "status" and "detail"')
    lines += [f"file left out: {reason}" for reason in summary["refused"].values()]
    note = table.lc_note()
    lines += [note] if note else []
    return "\n".join([*lines, f"scores: {summary['out']}"])
