"""`lc-engine report`: a page about a score table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lc_engine.cli import log
from lc_engine.cli.command import in_data, in_run
from lc_engine.cli.data_location import locate
from lc_engine.cli.score_options import ScoreOptions

if TYPE_CHECKING:
    from lc_engine.language.scorer import CausalLMScorer


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """The options of `lc-engine report`."""

    scores: Annotated[Path, typer.Argument(help="Folder or file of `lc-engine score`.")]
    data: Annotated[
        list[str] | None,
        in_data(
            help="The data that were scored, for images and texts.",
            metavar="[NAME=]PATH",
            show_default="those that the scores' _config.json names",
        ),
    ] = None
    subset: Annotated[
        list[Path] | None,
        in_data(help="File that `lc-engine select` wrote; repeat it to compare up to 4."),
    ] = None
    carry: Annotated[
        str | None,
        in_data(help="Columns of the data to colour, filter and count rows by: source,topic."),
    ] = None
    out: Annotated[Path, in_run(help="The file; beside a page a CSV is written.")] = Path(
        "report.html"
    )
    form: Annotated[
        Literal["html", "png", "parquet"],
        in_run(
            "--format",
            help="The page; the map and the curve as an image; rows for embedding viewers.",
        ),
    ] = "html"
    title: Annotated[
        str | None, in_run(help="Heading of the page.", show_default="name of the scores")
    ] = None
    points: Annotated[
        int, in_run(min=1, help="Rows that the map draws; of more, a sample over their density.")
    ] = 20_000
    previews: Annotated[
        int, in_run(min=0, help="Rows that come with their image or text; galleries first.")
    ] = 2_000
    shade_tokens: Annotated[
        bool,
        in_run(
            "--shade-tokens",
            help="Shade the responses' tokens by their NLL, by the run's language model.",
        ),
    ] = False
    seed: Annotated[int, in_run(min=0, help="Seed of the sample.")] = 0

    def where(self) -> Any:
        """Return the data that are named, None if none are.

        Raises:
            FileNotFoundError: there is nothing of that name.
            ValueError: two sources have the same name.
        """
        return locate(self.data) if self.data else None

    def columns(self) -> list[str]:
        """Return the columns of the data that are asked for."""
        return [name.strip() for name in (self.carry or "").split(",") if name.strip()]

    def scorer(self) -> CausalLMScorer | None:
        """Return the language model that gave the scores, if it is asked for.

        Raises:
            ValueError: the scores are of another kind, or `lc-engine score` did not write them.
        """
        if not self.shade_tokens:
            return None
        from lc_engine.language.scorer import CausalLMScorer

        scorer = ScoreOptions.of_run(self.scores).scorer()
        if not isinstance(scorer, CausalLMScorer):
            raise ValueError("--shade-tokens: the scores are not those of a language model")
        return scorer


def report(command: ReportCommand) -> None:
    """Write one HTML page about a score table, to be opened from disk, and sent by mail.

    The run, a map of the rows, galleries, what a selection keeps, the classes, and the suspicious
    rows with a reason each; those also as CSV. The page loads nothing from elsewhere.
    """
    with log.progress() as progress:
        progress.begin("making the page")
        out = _write(command)
    kind = {"html": "page", "png": "image", "parquet": "table"}[command.form]
    typer.echo(f"{kind}: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _out_of(command: ReportCommand) -> Path:
    """Return the file to write.

    Raises:
        ValueError: its name does not end as its form does.
    """
    suffix = f".{command.form}"
    if command.out.suffix.lower() not in (suffix, ".html"):
        raise ValueError(f"--out {command.out} must end with {suffix}, by --format {command.form}")
    # Beside the page of that name.
    return command.out if command.out.suffix.lower() == suffix else command.out.with_suffix(suffix)


def _write(command: ReportCommand) -> Path:
    out = _out_of(command)
    if command.form == "png":
        from lc_engine.reporting.figure import write_figure

        return write_figure(
            command.scores,
            command.subset,
            out,
            title=command.title,
            points=command.points,
            seed=command.seed,
        )
    if command.form == "parquet":
        from lc_engine.reporting.export import write_viewer_table

        return write_viewer_table(
            command.scores,
            command.where(),
            command.subset,
            out,
            carry=command.columns(),
        )
    from lc_engine.reporting.page import report as write

    return write(
        command.scores,
        command.where(),
        command.subset,
        out,
        title=command.title,
        points=command.points,
        previews=command.previews,
        carry=command.columns(),
        scorer=command.scorer(),
        seed=command.seed,
    )
