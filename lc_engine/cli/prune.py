"""`lc-engine prune`: a data set in, a smaller one of the same form out."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lc_engine.cli import log
from lc_engine.cli.choosing_options import ChoosingOptions
from lc_engine.cli.command import in_data, in_model, in_path, in_run
from lc_engine.cli.data_location import locate
from lc_engine.cli.exit_codes import BAD_ROWS, INTERRUPTED
from lc_engine.cli.score_options import JobOptions, ScoreOptions

if TYPE_CHECKING:
    from lc_engine.data.protocols import RowScorer
    from lc_engine.pruning.prune import Pruned
    from lc_engine.scoring.progress import Progress


_WHOLE: Final = "explicit:1"


@dataclass(frozen=True, kw_only=True)
class PruneCommand(ChoosingOptions, JobOptions):
    """The options of `lc-engine prune`."""

    out: Annotated[
        Path, in_run(help="Folder for the data and the reasons; a stopped run continues in it.")
    ] = Path("pruned")
    path: Annotated[
        str | None, in_path(help="Capacities; the whole model alone selects as well as more.")
    ] = _WHOLE
    ifd: Annotated[
        bool,
        in_model("--ifd/--no-ifd", help="Add the instruction-following difficulty of texts."),
    ] = True
    carry: Annotated[
        str | None, in_data(help="Columns of the data for rows.parquet: source,topic.")
    ] = None
    shard_rows: Annotated[
        int | None,
        in_run(min=1, help="Rows per file of the scores.", show_default="by the data"),
    ] = None
    as_json: Annotated[bool, in_run("--json", help="Print selection.json's content.")] = False

    def run(self, progress: Progress) -> tuple[Pruned, dict[str, str]]:
        """Score, select and write.

        Returns:
            What was written, and why each file of the data that was left out was, by its name.

        Raises:
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
        """
        from lc_engine.pruning.folder import SCORES, at_work_in, check_outside_of
        from lc_engine.pruning.prune import write_pruned
        from lc_engine.pruning.rows import open_stored
        from lc_engine.reporting.run import Run

        choice = self.choice(self.carry)
        where = locate(self.data)
        check_outside_of(self.out, where)
        if not self.ifd and self._is_for_texts(where):
            choice.warn_without_ifd()
        with at_work_in(self.out):
            known = {field.name for field in fields(JobOptions)}
            given = {name: getattr(self, name) for name in known}
            if self.masking in ("exits", "dropout") and self.path == _WHOLE:
                given["path"] = None  # exits bring their own, and of dropout 1 is no capacity
            job = _Scores(out=self.out / SCORES, shard_rows=self.shard_rows, **given)
            table, refused = job.run(progress, lambda source: choice.check_rows(len(source)))
            progress.begin("choosing and writing rows")
            run = Run.of(table.metadata, self.out / SCORES)
            stored = open_stored(where, texts=run.reads_records, **run.opening)
            return (
                write_pruned(table, stored, where, self.out, choice, command=self.command()),
                refused,
            )

    def command(self) -> str:
        """Return the command line that repeats the run, with paths that hold in any folder."""
        from lc_engine.data.locations import absolute_location

        words = ["lc-engine", "prune"]
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default or field.name == "as_json":
                continue
            option = "--" + field.name.replace("_", "-")
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, bool):
                    words.append(option if one else option.replace("--", "--no-", 1))
                    continue
                if field.name in ("model", "data"):
                    one = absolute_location(one)
                words += [option, str(one.resolve() if isinstance(one, Path) else one)]
        return shlex.join(words)


class _Scores(ScoreOptions):
    """The scores of a pruned data set: features of rows that are features are kept too."""

    def wants_features(self, scorer: RowScorer) -> bool | None:
        """Return what to ask `score` for."""
        from lc_engine.pruning.prune import keeps_features

        return keeps_features(scorer)


def prune(command: PruneCommand) -> None:
    """Score a data set, choose rows, and write them in the form of the data.

    Takes the models and the data of `lc-engine score`, see there; of several --data each is a
    source, for --by source and --share. Writes data/ (an image folder by
    hard links), selection.json (what was chosen, and why), rows.parquet (every row, kept or
    dropped), positions.npy, suspicious.csv, report.html and scores/. The same command continues a
    stopped run; another --keep in the same folder scores nothing again. Ends like `score`.
    """
    from lc_engine.selection.method import Method

    began = time.perf_counter()
    try:
        with log.progress() as progress:
            found, refused = command.run(progress)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command continues in {command.out}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    rows = found.selection["rows"]
    if command.as_json:
        typer.echo(json.dumps(found.selection, default=str))
    else:
        unscored = sum(rows["unscored"].values())
        without = ""
        if unscored:
            counts = ", ".join(f"{n:,} {name}" for name, n in rows["unscored"].items() if n)
            without = f"; {unscored:,} without a score {rows['unscored_rows_are']} ({counts})"
        by = Method(*(found.selection[name] for name in Method._fields))
        seconds = time.perf_counter() - began
        typer.echo(
            f"kept {rows['kept']:,} of {rows['in']:,} rows ({command.budget}) by "
            f"{by} in {seconds:.1f} s{without}\n"
            f"why: {found.selection['reason']}\n"
            f"data: {found.data}"
        )
        if found.selection["lc_note"]:
            typer.echo(found.selection["lc_note"])
        for reason in refused.values():
            typer.echo(f"file left out: {reason}")
    if refused or rows["scored"] < rows["in"]:
        raise typer.Exit(BAD_ROWS)
