"""The tables that `make bench` writes into README.md and docs/benchmarks.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import readme_table

ROOT = Path(__file__).parents[1]
HEAD = "linear_confidence D=768 C=1000 N=4096 2t whole"
SECONDS = {
    "test_engine[2threads-whole-linear50]": ("path", "linear50", 0.10),
    "test_engine[2threads-whole-geometric50]": ("path", "geometric50", 0.05),
    "test_engine[2threads-whole-linear5]": ("path", "linear5", 0.04),
    "test_engine_bfloat16[2threads-whole-linear50]": ("path", "linear50", 0.08),
    "test_engine_bfloat16[2threads-whole-geometric50]": ("path", "geometric50", 0.025),
    "test_engine_bfloat16[2threads-whole-linear5]": ("path", "linear5", 0.02),
    "test_one_dense_forward[2threads-whole]": (None, None, 0.02),
    "test_peer[2threads-whole-naive-loop]": ("peer", "naive-loop", 1.0),
    "test_peer[2threads-whole-einsum]": ("peer", "einsum", 0.7),
    "test_peer[2threads-whole-bfloat16-loop]": ("peer", "bfloat16-loop", 0.5),
}
OTHERS = {
    "test_engine": (None, None, 0.1),
    "test_peer[torch]": ("peer", "torch", 0.25),
}


def entries(group, seconds):
    return [
        {
            "name": name,
            "group": group,
            "params": {key: value} if key else None,
            "stats": {"median": median},
        }
        for name, (key, value, median) in seconds.items()
    ]


def report(flags=("avx2", "avx512f", "avx512_bf16"), head=HEAD):
    return {
        "datetime": "2026-11-27T10:00:00",
        "machine_info": {"cpu": {"brand_raw": "AMD EPYC", "count": 2, "flags": list(flags)}},
        "benchmarks": [*entries(head, SECONDS), *entries("attention 1t", OTHERS)],
    }


def test_the_readme_gets_one_row():
    header, rule, *rows = readme_table.headline(report()).splitlines()
    assert header.count("|") == rule.count("|")
    assert rows == [
        "| AMD EPYC (AVX512-BF16), 2026-11-27 | float32 / bfloat16 | 20 / 40 "
        "| 10 / 20 (bfloat16-loop) | 2.50 / 1.25 |"
    ]


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (("avx2", "avx512f", "avx512_bf16", "amx_bf16"), "AMD EPYC (AMX)"),
        (("avx2", "avx512f"), "AMD EPYC (AVX-512)"),
        (("avx2",), "AMD EPYC (AVX2)"),
        ((), "AMD EPYC"),
    ],
)
def test_the_kind_of_processor_is_named(flags, kind):
    assert f"| {kind}, 2026-11-27 |" in readme_table.headline(report(flags))
    assert f"on {kind} with 2 cores" in readme_table.details(report(flags))


def test_the_other_page_gets_everything():
    lines = readme_table.details(report()).splitlines()
    assert (
        "| (768, 1000) | 4096 whole | 2 | float32 | 10 / 20 | 5 / 10 (bfloat16-loop) " in (lines[4])
    )
    assert lines[4].endswith("| 5.00 / 2.50 | 2.50 |")
    assert lines[5].endswith("| bfloat16 | 12 / 40 | 6 / 20 (bfloat16-loop) | 4.00 / 1.25 | 4.00 |")
    assert lines[-1] == "| attention 1t | – | torch 2.50 |"


def test_a_report_without_the_headline_is_refused():
    with pytest.raises(SystemExit, match="has no group 'linear_confidence D=768 C=1000"):
        readme_table.headline(report(head="linear_confidence D=512 C=10 N=4096 2t whole"))


def test_only_the_text_between_the_markers_changes(tmp_path):
    file = tmp_path / "page.md"
    file.write_text(f"above\n{readme_table.BEGIN}\nold\n{readme_table.END}\nbelow\n")
    readme_table.rewrite(file, "new")
    assert file.read_text() == f"above\n{readme_table.BEGIN}\nnew\n{readme_table.END}\nbelow\n"
    file.write_text("no markers")
    with pytest.raises(SystemExit, match="lacks the marker"):
        readme_table.rewrite(file, "new")


def test_readme_and_benchmarks_page_show_the_same_run():
    row = next(
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and "| float32 / bfloat16 |" in line
    )
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    named, day = re.fullmatch(r"(.+), (\d{4}-\d\d-\d\d)", row.split("|")[1].strip()).groups()
    assert f"Measured {day} on {named} with" in page
    shown = [re.sub(r" \(.*\)", "", cell).strip().split(" / ") for cell in row.split("|")[3:6]]
    for at, dtype in enumerate(("float32", "bfloat16")):
        details = re.search(rf"^\| \(768, 1000\) \| 4096 whole \| 2 \| {dtype} (.+)$", page, re.M)
        geometric = [
            re.sub(r" \(.*\)", "", cell).strip().split(" / ")[1]
            for cell in details[1].split("|")[1:4]
        ]
        assert [cell[at] for cell in shown] == geometric
