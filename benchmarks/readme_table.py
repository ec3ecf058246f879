"""Write the measured tables of README.md and docs/benchmarks.md from pytest-benchmark's JSON.

    python -m benchmarks.readme_table benchmarks/latest.json README.md docs/benchmarks.md

The README gets one row, which names its processor; the other file every operator, with a column per
kind of processor, of which a run writes its own and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Key = tuple[str, ...]
    Rows = dict[Key, str]

BEGIN = "<!-- measured: written by `make bench` -->"
END = "<!-- end of measured -->"
HEAD = re.compile(r"linear_confidence D=(\d+) C=(\d+) N=(\d+) (\d)t (whole|stream)")
HEADLINE = "linear_confidence D=768 C=1000 N=4096 2t whole"  # the README's row
PATH = "geometric50"  # of the comparison with peers
SIZES = ("geometric5", "gauss8", "geometric50", "linear50")
# Parameters that tell the contenders of a group apart, if they are not in their tests' names.
OWN = ("peer", "path", "form", "way")
ENGINES = (("float32", "engine"), ("bfloat16", "engine_bfloat16"))
# Kind of processor by CPU flag, widest bfloat16 unit first: it decides how fast the peers are too.
KINDS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX512-BF16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
SHOWN = ("AVX512-BF16", "AMX")  # with or without a measurement


def groups(report: dict) -> dict[str, dict[str, float]]:
    """Return median seconds by group and contender (the test's name and its own parameter).

    Raises:
        SystemExit: two contenders of a group have the same name.
    """
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for entry in report["benchmarks"]:
        params = entry["params"] or {}
        own = next((params[name] for name in OWN if params.get(name)), "")
        contender = f"{entry['name'].split('[')[0].removeprefix('test_')} {own}".strip()
        times = found[entry["group"] or entry["name"]]
        if contender in times:
            raise SystemExit(f"{entry['name']}: its group has another {contender!r}; see OWN")
        times[contender] = entry["stats"]["median"]
    return dict(found)


def kind_of(report: dict) -> str | None:
    """Return the kind of the processor, None if it is none of `KINDS`."""
    flags = set(report["machine_info"]["cpu"].get("flags", ()))
    return next((name for flag, name in KINDS.items() if flag in flags), None)


def processor(report: dict) -> str:
    """Return the processor's name and, in parentheses, its kind."""
    kind = kind_of(report)
    name = report["machine_info"]["cpu"].get("brand_raw", "an unnamed CPU")
    return f"{name} ({kind})" if kind else name


def fastest_other(times: dict[str, float]) -> str | None:
    """Return the group's fastest peer other than the naive loop."""
    others = {name: t for name, t in times.items() if name.startswith("peer ")}
    others.pop("peer naive-loop", None)
    return min(others, key=others.__getitem__).removeprefix("peer ") if others else None


def headline(report: dict) -> str:
    """Return the README's table: one head, float32 and bfloat16 in one row.

    Raises:
        SystemExit: the report lacks that head.
    """
    times = groups(report).get(HEADLINE)
    if times is None:
        raise SystemExit(f"the report has no group {HEADLINE!r}, which the README shows")
    best = fastest_other(times)
    cells: list[list[str]] = [[], [], []]
    for _, engine in ENGINES:
        ours = times[f"{engine} {PATH}"]
        cells[0].append(_times(times, "peer naive-loop", ours))
        cells[1].append(_times(times, f"peer {best}", ours))
        cells[2].append(f"{ours / times['one_dense_forward']:.2f}")
    naive, fastest, dense = (" / ".join(pair) for pair in cells)
    lines = [
        "| processor, 2 threads | engine in | × naive loop | × fastest other peer "
        "| ÷ one dense float32 forward |",
        "|---|---|---|---|---|",
        f"| {processor(report)}, {report['datetime'][:10]} | {' / '.join(d for d, _ in ENGINES)} "
        f"| {naive} | {fastest} ({best or '–'}) | {dense} |",
    ]
    return "\n".join(lines)


def head_peers(found: dict[str, dict[str, float]]) -> Rows:
    """Return how many times faster than each peer a head is, along 50 points and along 8."""
    rows = {}
    for key, times in _heads(found):
        peers = [name for name in times if name.startswith("peer ")]
        for dtype, engine in ENGINES:
            if f"{engine} {PATH}" not in times:
                continue
            ours = times[f"{engine} {PATH}"]
            cell = ", ".join(
                f"{name.removeprefix('peer ')} {_times(times, name, ours)}" for name in peers
            )
            if "bfloat16_loop_of_8" in times:
                few = _times(times, "bfloat16_loop_of_8", times[f"{engine} gauss8"])
                cell += f"; K = 8: bfloat16-loop {few}"
            rows[*key, dtype] = cell
    return rows


def head_costs(found: dict[str, dict[str, float]]) -> Rows:
    """Return how many dense float32 forwards a head takes, by the points of the path."""
    rows = {}
    for key, times in _heads(found):
        dense = times["one_dense_forward"]
        for dtype, engine in ENGINES:
            paths = (times.get(f"{engine} {path}") for path in SIZES)
            rows[*key, dtype] = ", ".join(f"{t / dense:.2f}" if t else "–" for t in paths)
        if "one_dense_forward_bfloat16" in times:
            short = times["one_dense_forward_bfloat16"] / dense
            rows[*key, "one dense bfloat16 forward"] = f"{short:.2f}"
    return rows


def others(found: dict[str, dict[str, float]]) -> Rows:
    """Return how many times faster each form of the engine is than each peer of its group."""
    rows = {}
    for group, times in found.items():
        if HEAD.fullmatch(group):
            continue
        peers = {name: t for name, t in times.items() if not name.startswith("engine")}
        for engine, ours in times.items():
            if engine in peers:
                continue
            faster = (f"{name.removeprefix('peer ')} {t / ours:.2f}" for name, t in peers.items())
            form = engine.removeprefix("engine").strip(" _") or "–"
            rows[group, form] = ", ".join(faster)
    return rows


# Each table's line above it, the headers of the columns that name a row, and its rows.
TABLES: tuple[tuple[str, Key, Callable[[dict[str, dict[str, float]]], Rows]], ...] = (
    (
        "Heads, times faster than each peer (higher is better), K = 50 on the geometric path, and "
        "K = 8 at Gauss nodes against a loop over 8 sub-models:",
        ("head (D, C)", "rows", "threads", "engine in"),
        head_peers,
    ),
    (
        "Heads, the engine's time in dense float32 forwards (lower is better) for K = 5 on the "
        "geometric path, 8 Gauss nodes, 50 on the geometric path, and 50 on the linear one:",
        ("head (D, C)", "rows", "threads", "time of"),
        head_costs,
    ),
    (
        "Other operators, times faster than each peer (higher is better):",
        ("benchmark", "engine"),
        others,
    ),
)


def details(report: dict, before: str) -> str:
    """Return the tables of docs/benchmarks.md, with one column per kind of processor.

    Args:
        report: of a run; it fills the column of its own kind, all of it.
        before: the tables so far, whose columns of other kinds stay.
    """
    kind, cpu = kind_of(report) or "another", report["machine_info"]["cpu"]
    measured = dict.fromkeys(SHOWN, "not measured by `make bench`")
    measured |= dict(re.findall(r"^- (\S+): (.+)\.$", before, re.MULTILINE))
    measured[kind] = (
        f"{report['datetime'][:10]}, {cpu.get('brand_raw', 'an unnamed CPU')} with "
        f"{cpu.get('count', '?')} cores; medians of one run of `make bench`"
    )
    found = groups(report)
    lines = [f"- {name}: {text}." for name, text in measured.items()]
    for title, keys, rows in TABLES:
        columns = {**_columns(before, keys), kind: rows(found)}
        names = dict.fromkeys(
            key for column in [columns[kind], *columns.values()] for key in column
        )
        lines += ["", title, "", _row((*keys, *measured)), "|---" * len((*keys, *measured)) + "|"]
        lines += [
            _row((*key, *(columns.get(name, {}).get(key, "–") for name in measured)))
            for key in names
        ]
    return "\n".join(lines)


def _columns(page: str, keys: Key) -> dict[str, Rows]:
    """Return a table's columns by kind of processor, each by the cells that name its rows."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    columns: dict[str, Rows] = {}
    header: list[str] = []
    for row in rows:
        if row[0] in {named[0] for _, named, _ in TABLES}:
            header = row if tuple(row[: len(keys)]) == keys else []
        else:
            for kind, cell in zip(header[len(keys) :], row[len(keys) :], strict=False):
                if cell != "–":
                    columns.setdefault(kind, {})[tuple(row[: len(keys)])] = cell
    return columns


def _heads(found: dict[str, dict[str, float]]) -> Iterator[tuple[Key, dict[str, float]]]:
    """Yield the groups of heads, each with what names it in a table."""
    for group, times in found.items():
        match = HEAD.fullmatch(group)
        if match is not None:
            dims, classes, rows, threads, batches = match.groups()
            yield (f"({dims}, {classes})", f"{rows} {batches}", threads), times


def _times(times: dict[str, float], peer: str, ours: float) -> str:
    """Return how many times as long as the engine a peer took."""
    if peer not in times:
        return "–"
    ratio = times[peer] / ours
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _row(cells: Key) -> str:
    return f"| {' | '.join(cells)} |"


def rewrite(file: Path, write: Callable[[str], str]) -> None:
    """Replace the text between the two markers by what a function makes of it.

    Raises:
        SystemExit: the file lacks one of them.
    """
    text = file.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{file} lacks the marker {BEGIN!r} or {END!r}")
    old = text.split(BEGIN, 1)[1].split(END, 1)[0]
    file.write_text(
        text.replace(f"{BEGIN}{old}{END}", f"{BEGIN}\n{write(old)}\n{END}", 1), encoding="utf-8"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("readme", type=Path)
    parser.add_argument("details", type=Path)
    asked = parser.parse_args()
    report = json.loads(asked.report.read_text(encoding="utf-8"))
    rewrite(asked.readme, lambda _: headline(report))
    rewrite(asked.details, lambda before: details(report, before))


if __name__ == "__main__":
    main()
