"""Write the measured tables from pytest-benchmark's own output, so that they cannot drift.

    python -m benchmarks.readme_table benchmarks/latest.json README.md docs/benchmarks.md

The README gets the rows of one head, the other file everything.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

BEGIN = "<!-- measured: written by `make bench` -->"
END = "<!-- end of measured -->"
HEAD = re.compile(r"linear_confidence D=(\d+) C=(\d+) N=(\d+) (\d)t (whole|stream)")
HEADLINE = ("768", "1000")  # of the README


def groups(report: dict) -> dict[str, dict[str, float]]:
    """Median seconds by group and by contender (the test's name and its own parameter)."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for entry in report["benchmarks"]:
        params = entry["params"] or {}
        contender = params.get("peer") or params.get("path") or ""
        name = entry["name"].split("[")[0].removeprefix("test_")
        found[entry["group"] or entry["name"]][f"{name} {contender}".strip()] = entry["stats"][
            "median"
        ]
    return dict(found)


def head_rows(found: dict[str, dict[str, float]], whole: bool) -> list[str]:
    """Two rows per shape, threads and batching: the four ratios that the engine is judged by."""
    rows = []
    for group, times in found.items():
        match = HEAD.fullmatch(group)
        if match is None:
            continue
        dims, classes, rows_scored, threads, batches = match.groups()
        if not whole and (dims, classes) != HEADLINE:
            continue
        peers = {n.removeprefix("peer "): t for n, t in times.items() if n.startswith("peer ")}
        others = {n: t for n, t in peers.items() if n != "naive-loop"}
        fastest = min(others, key=others.__getitem__) if others else None
        for dtype, engine in (("float32", "engine"), ("bfloat16", "engine_bfloat16")):
            if f"{engine} linear50" not in times:
                continue
            cells = []
            for path in ("linear50", "geometric50"):
                ours = times[f"{engine} {path}"]
                naive = f"{peers['naive-loop'] / ours:.0f}" if "naive-loop" in peers else "–"
                best = f"{others[fastest] / ours:.0f}" if fastest else "–"
                cells.append((naive, best, f"{ours / times['one_dense_forward']:.2f}"))
            growth = times[f"{engine} linear50"] / times[f"{engine} linear5"]
            both = [" / ".join(pair) for pair in zip(*cells, strict=True)]
            rows.append(
                f"| ({dims}, {classes}) | {rows_scored} {batches} | {threads} | {dtype} "
                f"| {both[0]} | {both[1]} ({fastest or '–'}) | {both[2]} | {growth:.2f} |"
            )
    return rows


def other_rows(found: dict[str, dict[str, float]]) -> list[str]:
    """How many times faster each form of the engine is than each peer of its group."""
    rows = []
    for group, times in found.items():
        if HEAD.fullmatch(group):
            continue
        peers = {name: t for name, t in times.items() if not name.startswith("engine")}
        for engine, ours in times.items():
            if engine in peers:
                continue
            ratios = (f"{name.removeprefix('peer ')} {t / ours:.2f}" for name, t in peers.items())
            form = engine.removeprefix("engine").strip(" _") or "–"
            rows.append(f"| {group} | {form} | {', '.join(ratios)} |")
    return rows


def table(report: dict, whole: bool) -> str:
    """The measured section, with the machine that it was measured with."""
    found = groups(report)
    cpu = report["machine_info"]["cpu"]
    lines = [
        f"Measured {report['datetime'][:10]} on {cpu.get('brand_raw', 'an unnamed CPU')} with "
        f"{cpu.get('count', '?')} cores; medians of one run of `make bench`. Times faster than the "
        "peer (higher is better) for the linear path / the geometric path, K = 50:",
        "",
        "| head (D, C) | rows | threads | engine in | × naive loop | × fastest other | engine ÷ "
        "one dense float32 forward | K = 50 ÷ K = 5 |",
        "|---|---|---|---|---|---|---|---|",
        *head_rows(found, whole),
    ]
    others = other_rows(found) if whole else []
    if others:
        lines += ["", "| benchmark | engine | is faster, times |", "|---|---|---|", *others]
    return "\n".join(lines)


def rewrite(file: Path, body: str) -> None:
    """Replace what stands between the two markers."""
    text = file.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{file}: must hold the lines {BEGIN!r} and {END!r}")
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
    rewrite(asked.readme, table(report, whole=False))
    rewrite(asked.details, table(report, whole=True))


if __name__ == "__main__":
    main()
