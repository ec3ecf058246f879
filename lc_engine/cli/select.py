"""`lc-engine select`: the rows to keep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import typer

from lc_engine.cli import log
from lc_engine.cli.command import in_run
from lc_engine.cli.select_options import SelectOptions


@dataclass(frozen=True, kw_only=True)
class SelectCommand(SelectOptions):
    """The options of `lc-engine select`."""

    as_json: Annotated[bool, in_run("--json", help="Print the summary as one JSON object.")] = False


def select(command: SelectCommand) -> None:
    """Choose the rows to keep: exactly the number asked for, of the rows that have a score.

    A strategy that needs --features says so. With --gamma auto and --features FlexRand tries out
    some splits. With --streamed, random and flexrand draw other rows than without it.
    """
    with log.progress() as progress:
        progress.begin(f"choosing rows by {command.strategy}")
        kept, method, counts = command.run()
    rows = counts.pop("ok")
    where = str(command.write if command.out is None else command.out)
    bad = {status: count for status, count in counts.items() if count}
    if command.as_json:
        summary = {"out": where, "kept": kept, "rows": rows, "keep": command.keep, "unscored": bad}
        by = {**method._asdict(), "method": method.name}
        typer.echo(json.dumps(summary | by))
    else:
        without = ""
        if bad:
            shown = ", ".join(f"{count:,} {status}" for status, count in bad.items())
            done = "kept too" if command.unscored == "keep" and command.write else "left out"
            without = f"; {sum(bad.values()):,} rows without a score are {done} ({shown})"
        typer.echo(
            f"kept {kept:,} of {rows:,} scored rows ({command.budget}) by {method}: "
            f"{where}{without}"
        )
