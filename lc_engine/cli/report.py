"""`lc-engine report`: a page about a score table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from lc_engine.cli import log
from lc_engine.cli.command import in_data, in_run


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """The options of `lc-engine report`."""

    scores: Annotated[Path, typer.Argument(help="Folder or file of `lc-engine score`.")]
    data: Annotated[
        str | None,
        in_data(
            help="The data that were scored, for images and texts.",
            show_default="those that the scores' _config.json names",
        ),
    ] = None
    subset: Annotated[
        list[Path] | None,
        in_data(help="File that `lc-engine select` wrote; repeat it to compare up to 4."),
    ] = None
    out: Annotated[Path, in_run(help="The HTML file; a CSV is written beside it.")] = Path(
        "report.html"
    )
    form: Annotated[
        Literal["html", "png"],
        in_run("--format", help="The page, or the map and the budget curve alone as an image."),
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
    seed: Annotated[int, in_run(min=0, help="Seed of the sample.")] = 0


def report(command: ReportCommand) -> None:
    """Write one HTML page about a score table, to be opened from disk, and sent by mail.

    The run, a map of the rows, galleries, what a selection keeps, the classes, and the suspicious
    rows with a reason each; those also as CSV. The page loads nothing from elsewhere.
    """
    from lc_engine.reporting.figure import write_figure
    from lc_engine.reporting.page import report as write

    with log.progress() as progress:
        progress.begin("making the page")
        if command.form == "png":
            out = write_figure(
                command.scores,
                command.subset,
                command.out.with_suffix(".png"),
                title=command.title,
                points=command.points,
                seed=command.seed,
            )
        else:
            out = write(
                command.scores,
                command.data,
                command.subset,
                command.out,
                title=command.title,
                points=command.points,
                previews=command.previews,
                seed=command.seed,
            )
    kind = "image" if command.form == "png" else "page"
    typer.echo(f"{kind}: {out} ({out.stat().st_size / 1e6:.1f} MB)")
