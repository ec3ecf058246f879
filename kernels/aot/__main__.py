"""Compile every configuration that can run, and report its resources.

python -m lc_engine.kernels.aot --write tests/kernels/aot_table.csv
"""

from __future__ import annotations

import argparse
import os
from dataclasses import astuple
from pathlib import Path

from lc_engine.kernels.aot.cases import cases
from lc_engine.kernels.aot.compile import compile_all
from lc_engine.kernels.aot.table import changed, read_table, write_table
from lc_engine.kernels.targets import TARGETS


def main() -> None:
    """Compile, print a summary and, with --write, renew the committed table."""
    parser = argparse.ArgumentParser(
        prog="python -m lc_engine.kernels.aot",
        description="Compile every configuration that can run, and report its resources.",
    )
    parser.add_argument("--write", type=Path, help="table to renew; compile only what has changed")
    parser.add_argument("--all", action="store_true", help="with --write, compile everything")
    parser.add_argument("--target", choices=TARGETS, help="one target only, without --write")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.write and arguments.target:
        parser.error("--write renews the table of all targets: leave out --target")
    targets = [arguments.target] if arguments.target else TARGETS
    wanted = [case for target in targets for case in cases(target)]
    rows = {}
    if arguments.write and arguments.write.exists() and not arguments.all:
        _, rows = read_table(arguments.write)
    reports = compile_all(changed(wanted, rows), arguments.workers)
    for report in reports:
        print(*astuple(report))
    spilling = sum(report.spills > 0 for report in reports)
    print(f"{len(wanted)} configurations, {len(reports)} compiled, {spilling} of them with spills")
    if arguments.write:
        rows |= {report.name: report for report in reports}
        write_table(arguments.write, [rows[case.name] for case in wanted])


if __name__ == "__main__":
    main()
