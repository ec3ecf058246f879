"""Write the measured tables of README.md and docs/benchmarks.md from pytest-benchmark's JSON.

    python -m benchmarks.readme_table benchmarks/latest.json README.md docs/benchmarks.md

The README gets one row, the other file every operator.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

BEGIN = "<!-- measured: written by `make bench` -->"
END = "<!-- end of measured -->"
HEAD = re.compile(r"linear_confidence D=(\d+) C=(\d+) N=(\d+) (\d)t (whole|stream)")
HEADLINE = "linear_confidence D=768 C=1000 N=4096 2t whole"  # the README's row
ENGINES = (("float32", "engine"), ("bfloat16", "engine_bfloat16"))
# Kind of processor by CPU flag, widest bfloat16 unit first: it decides how fast the peers are too.
KINDS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX512-BF16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}


def groups(report: dict) -> dict[str, dict[str, float]]:
    """Return median seconds by group and contender (the test's name and its own parameter)."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for entry in report["benchmarks"]:
        params = entry["params"] or {}
        contender = params.get("peer") or params.get("path") or ""
        name = entry["name"].split("[")[0].removeprefix("test_")
        found[entry["group"] or entry["name"]][f"{name} {contender}".strip()] = entry["stats"][
            "median"
        ]
    return dict(found)


def processor(report: dict) -> str:
    """Return the processor's name and, in parentheses, its kind."""
    cpu = report["machine_info"]["cpu"]
    flags = set(cpu.get("flags", ()))
    kind = next((name for flag, name in KINDS.items() if flag in flags), None)
    name = cpu.get("brand_raw", "an unnamed CPU")
    return f"{name} ({kind})" if kind else name


class Ratios(NamedTuple):
    """The engine on one path, against its peers in the same group."""

    naive: str
    fastest: str
    dense: str


def fastest_other(times: dict[str, float]) -> str | None:
    """Return the group's fastest peer other than the naive loop."""
    others = {name: t for name, t in times.items() if name.startswith("peer ")}
    others.pop("peer naive-loop", None)
    return min(others, key=others.__getitem__).removeprefix("peer ") if others else None


def ratios(times: dict[str, float], engine: str, path: str) -> Ratios:
    ours, best = times[f"{engine} {path}"], fastest_other(times)
    naive = times.get("peer naive-loop")
    return Ratios(
        naive=f"{naive / ours:.0f}" if naive else "–",
        fastest=f"{times[f'peer {best}'] / ours:.0f}" if best else "–",
        dense=f"{ours / times['one_dense_forward']:.2f}",
    )


def head_rows(found: dict[str, dict[str, float]]) -> list[str]:
    """Return two rows per shape, threads and batching: the four ratios the engine is judged by."""
    rows = []
    for group, times in found.items():
        match = HEAD.fullmatch(group)
        if match is None:
            continue
        dims, classes, rows_scored, threads, batches = match.groups()
        fastest = fastest_other(times)
        for dtype, engine in ENGINES:
            if f"{engine} linear50" not in times:
                continue
            cells = [ratios(times, engine, path) for path in ("linear50", "geometric50")]
            growth = times[f"{engine} linear50"] / times[f"{engine} linear5"]
            both = Ratios(*(" / ".join(pair) for pair in zip(*cells, strict=True)))
            rows.append(
                f"| ({dims}, {classes}) | {rows_scored} {batches} | {threads} | {dtype} "
                f"| {both.naive} | {both.fastest} ({fastest or '–'}) | {both.dense} "
                f"| {growth:.2f} |"
            )
    return rows


def other_rows(found: dict[str, dict[str, float]]) -> list[str]:
    """Return how many times faster each form of the engine is than each peer of its group."""
    rows = []
    for group, times in found.items():
        if HEAD.fullmatch(group):
            continue
        peers = {name: t for name, t in times.items() if not name.startswith("engine")}
        for engine, ours in times.items():
            if engine in peers:
                continue
            faster = (f"{name.removeprefix('peer ')} {t / ours:.2f}" for name, t in peers.items())
            form = engine.removeprefix("engine").strip(" _") or "–"
            rows.append(f"| {group} | {form} | {', '.join(faster)} |")
    return rows


def headline(report: dict) -> str:
    """Return the README's table: one head, float32 and bfloat16 in one row.

    Raises:
        SystemExit: the report lacks that head.
    """
    times = groups(report).get(HEADLINE)
    if times is None:
        raise SystemExit(f"the report has no group {HEADLINE!r}, which the README shows")
    cells = [ratios(times, engine, "geometric50") for _, engine in ENGINES]
    both = Ratios(*(" / ".join(pair) for pair in zip(*cells, strict=True)))
    lines = [
        "| processor, 2 threads | engine in | × naive loop | × fastest other peer "
        "| ÷ one dense float32 forward |",
        "|---|---|---|---|---|",
        f"| {processor(report)}, {report['datetime'][:10]} | {' / '.join(d for d, _ in ENGINES)} "
        f"| {both.naive} | {both.fastest} ({fastest_other(times) or '–'}) | {both.dense} |",
    ]
    return "\n".join(lines)


def details(report: dict) -> str:
    """Return the tables of docs/benchmarks.md, with the machine they were measured on."""
    found = groups(report)
    lines = [
        f"Measured {report['datetime'][:10]} on {processor(report)} with "
        f"{report['machine_info']['cpu'].get('count', '?')} cores; medians of one run of "
        "`make bench`. Times faster than the peer (higher is better) for the linear path / the "
        "geometric path, K = 50:",
        "",
        "| head (D, C) | rows | threads | engine in | × naive loop | × fastest other | engine ÷ "
        "one dense float32 forward | K = 50 ÷ K = 5 |",
        "|---|---|---|---|---|---|---|---|",
        *head_rows(found),
    ]
    others = other_rows(found)
    if others:
        lines += ["", "| benchmark | engine | times faster than |", "|---|---|---|", *others]
    return "\n".join(lines)


def rewrite(file: Path, body: str) -> None:
    """Replace the text between the two markers.

    Raises:
        SystemExit: the file lacks one of them.
    """
    text = file.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{file} lacks the marker {BEGIN!r} or {END!r}")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    file.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("readme", type=Path)
    parser.add_argument("details", type=Path)
    asked = parser.parse_args()
    report = json.loads(asked.report.read_text(encoding="utf-8"))
    rewrite(asked.readme, headline(report))
    rewrite(asked.details, details(report))


if __name__ == "__main__":
    main()
