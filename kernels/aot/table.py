"""The committed tables: a CSV per version of Triton, with a report per case."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import triton

from lc_engine._util.atomic_write import atomic_write
from lc_engine.kernels.aot.compile import Report
from lc_engine.kernels.aot.keys import key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from lc_engine.kernels.aot.cases import Case


def table_in(folder: Path) -> Path:
    """Return the table of the installed Triton, which need not exist."""
    return folder / f"triton-{triton.__version__}.csv"


def read_table(path: Path) -> dict[str, Report]:
    """Return the reports of a table by the cases' names; none where there is no such file."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = [
            Report(row.pop("name"), row.pop("key"), **{k: int(v) for k, v in row.items()})
            for row in csv.DictReader(file)
        ]
    return {row.name: row for row in rows}


def write_table(path: Path, reports: Iterable[Report]) -> None:
    """Write a table that `read_table` reads."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        names = [field.name for field in fields(Report)]
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(report) for report in reports)


def changed(cases: Iterable[Case], rows: Mapping[str, Report]) -> list[Case]:
    """Return the cases that have no row with their key."""
    return [case for case in cases if case.name not in rows or rows[case.name].key != key(case)]
