"""Compile every configuration that can run, and report its resources.

python -m lc_engine.kernels.aot --write tests/kernels/aot_tables
"""

from __future__ import annotations

import argparse
import os
from dataclasses import astuple
from pathlib import Path

from lc_engine.kernels.aot.cases import cases
from lc_engine.kernels.aot.compile import compile_all
from lc_engine.kernels.aot.table import changed, read_table, table_in, write_table
from lc_engine.kernels.targets import TARGETS


def main() -> None:
    """Compile, print a summary and, with --write, renew the table of the installed Triton."""
    parser = argparse.ArgumentParser(
        prog="python -m lc_engine.kernels.aot",
        description="Compile every configuration that can run, and report its resources.",
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FOLDER",
        help="folder of tables, in which that of the installed Triton is renewed; compile only "
        "what has changed",
    )
    parser.add_argument("--all", action="store_true", help="with --write, compile everything")
    parser.add_argument("--target", choices=TARGETS, help="one target only, without --write")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.write and arguments.target:
        parser.error("--write renews the table of all targets: leave out --target")
    targets = [arguments.target] if arguments.target else TARGETS
    wanted = [case for target in targets for case in cases(target)]
    table = table_in(arguments.write) if arguments.write else None
    rows = read_table(table) if table and not arguments.all else {}
    reports = compile_all(changed(wanted, rows), arguments.workers)
    for report in reports:
        print(*astuple(report))
    spilling = sum(report.spills > 0 for report in reports)
    print(f"{len(wanted)} configurations, {len(reports)} compiled, {spilling} of them with spills")
    if table:
        rows |= {report.name: report for report in reports}
        write_table(table, [rows[case.name] for case in wanted])


if __name__ == "__main__":
    main()
