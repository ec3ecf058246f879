"""The result of a benchmark, as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lc_engine._util.text_table import aligned
from lc_engine.bench.ways import ENGINE, NAIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.bench.machine import Machine
    from lc_engine.bench.measure import Measured, Outcome


def as_text(outcomes: Sequence[Outcome], machine: Machine, command: str) -> str:
    """Return the tables for a terminal."""
    lines = []
    for outcome in outcomes:
        lines += ["", *_table(outcome), "", *_costs(outcome), *_bounds(outcome, machine)]
    return "\n".join([*lines, "", *_machine(machine), f"again: {command}"])


def as_json(outcomes: Sequence[Outcome], machine: Machine, command: str) -> str:
    """Return everything that was measured, as JSON."""
    jobs = []
    for outcome in outcomes:
        engine = outcome.seconds(ENGINE)
        assert engine is not None
        job: dict[str, Any] = asdict(outcome)
        for way, found in zip(job["ways"], outcome.ways, strict=True):
            if found.parity is not None:
                way["parity"]["agrees"] = found.parity.agrees
            if found.seconds is not None:
                way["rows_per_second"] = outcome.scored / found.seconds
                way["times_the_engine"] = found.seconds / engine
        job["roofline_seconds"] = outcome.forwards * outcome.work.seconds(machine)
        job["decode_share_of_engine"] = outcome.passes * outcome.reading / engine
        jobs.append(job)
    whole = {"command": command, "machine": asdict(machine), "jobs": jobs}
    return json.dumps(whole, indent=2) + "\n"


def _table(outcome: Outcome) -> list[str]:
    engine = outcome.seconds(ENGINE)
    assert engine is not None
    title = (
        f"{outcome.title}: {outcome.scored:,} of {outcome.rows:,} rows, {outcome.sub_models} "
        f"sub-models, {outcome.rounds} rounds in turns, medians"
    )
    head = ["way", "rows/s", "engine is", "memory", "largest |Δlc|", "rank corr.", "same kept"]
    return [title, *aligned([head, *(_row(way, outcome.scored, engine) for way in outcome.ways)])]


def _row(way: Measured, rows: int, engine: float) -> list[str]:
    parity = ["", "", ""]
    if way.parity is not None:
        parity = [
            f"{way.parity.difference:.1e}",
            f"{way.parity.correlation:.5f}",
            f"{way.parity.same} of {way.parity.kept}",
        ]
    if way.seconds is None:
        return [f"{way.name} ({way.reason})", "", "", "", *parity]
    ratio = "" if way.name == ENGINE else f"{way.seconds / engine:.2f}×"
    memory = "" if way.memory is None else f"{way.memory / 1e6:,.0f} MB"
    return [way.name, f"{rows / way.seconds:,.1f}", ratio, memory, *parity]


def _costs(outcome: Outcome) -> list[str]:
    head = ["seconds for", "engine", NAIVE]
    rows = [
        [f"K = {cost.sub_models}, N = {cost.rows:,}", f"{cost.engine:.3g}", f"{cost.naive:.3g}"]
        for cost in sorted(outcome.costs, key=lambda cost: (cost.sub_models, cost.rows))
    ]
    return aligned([head, *rows])


def _bounds(outcome: Outcome, machine: Machine) -> list[str]:
    engine = outcome.seconds(ENGINE)
    assert engine is not None
    floor = outcome.forwards * outcome.work.seconds(machine)
    return [
        "",
        f"reading and decoding alone, {outcome.passes} time(s): "
        f"{100 * outcome.passes * outcome.reading / engine:.0f} % of the engine's time",
        f"{outcome.forwards} dense forwards at this machine's float32 peak: {floor:.3g} s, "
        f"{100 * floor / engine:.0f} % of the engine's time",
    ]


def _machine(machine: Machine) -> list[str]:
    versions = ", ".join(f"{name} {text}" for name, text in machine.versions.items())
    return [
        f"{machine.processor} ({', '.join(machine.features) or 'no vectors for products'}), "
        f"{machine.processors} processors, {machine.threads} threads: "
        f"product {machine.flops / 1e9:,.0f} GFLOP/s in float32, "
        f"{machine.bfloat16_flops / 1e9:,.0f} in bfloat16; "
        f"copy {machine.bandwidth / 1e9:,.1f} GB/s",
        versions,
    ]
