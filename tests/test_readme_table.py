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
    "test_engine[2threads-whole-geometric5]": ("path", "geometric5", 0.04),
    "test_engine[2threads-whole-gauss8]": ("path", "gauss8", 0.02),
    "test_engine_bfloat16[2threads-whole-linear50]": ("path", "linear50", 0.08),
    "test_engine_bfloat16[2threads-whole-geometric50]": ("path", "geometric50", 0.025),
    "test_engine_bfloat16[2threads-whole-geometric5]": ("path", "geometric5", 0.02),
    "test_engine_bfloat16[2threads-whole-gauss8]": ("path", "gauss8", 0.01),
    "test_one_dense_forward[2threads-whole]": (None, None, 0.02),
    "test_one_dense_forward_bfloat16[2threads-whole]": (None, None, 0.01),
    "test_bfloat16_loop_of_8[2threads-whole]": (None, None, 0.08),
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


def rows_of(page):
    """The cells of each row of a table by those that name it."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {tuple(row[:-2]): row[-2:] for row in rows}


def test_the_other_page_gets_everything():
    page = readme_table.details(report(), "")
    assert "- AVX512-BF16: 2026-11-27, AMD EPYC with 2 cores; medians of one run" in page
    assert "- AMX: not measured by `make bench`." in page
    rows = rows_of(page)
    head = ("(768, 1000)", "4096 whole", "2")
    for names in (("head (D, C)", "rows", "threads", "engine in"), ("benchmark", "engine")):
        assert rows[names] == ["AVX512-BF16", "AMX"]
    assert rows[*head, "bfloat16"] == ["1.00, 0.50, 1.25, 4.00", "–"]
    assert rows[*head, "one dense bfloat16 forward"] == ["0.50", "–"]
    assert (
        "| (768, 1000) | 4096 whole | 2 | float32 | naive-loop 20, einsum 14, bfloat16-loop 10; "
        "K = 8: bfloat16-loop 4.0 | – |" in page
    )
    assert rows["attention 1t", "–"] == ["torch 2.50", "–"]


def test_a_run_writes_the_column_of_its_processor_and_keeps_the_other():
    amx = {**report(("avx2", "amx_bf16")), "datetime": "2026-12-01T10:00:00"}
    amx["benchmarks"] = [*amx["benchmarks"], *entries("block 1t", OTHERS)]
    for entry in amx["benchmarks"]:
        if entry["group"] == "attention 1t" and entry["params"]:
            entry["stats"]["median"] = 0.05
    both = readme_table.details(amx, readme_table.details(report(), ""))
    assert "- AVX512-BF16: 2026-11-27, AMD EPYC" in both
    assert "- AMX: 2026-12-01, AMD EPYC" in both
    assert rows_of(both)["attention 1t", "–"] == ["torch 2.50", "torch 0.50"]
    assert rows_of(both)["block 1t", "–"] == ["–", "torch 2.50"]
    # All of a column is of one run: what that run did not measure is gone.
    fewer = {**amx, "benchmarks": entries("block 1t", OTHERS)}
    again = rows_of(readme_table.details(fewer, both))
    assert again["attention 1t", "–"] == ["torch 2.50", "–"]
    assert again["block 1t", "–"] == ["–", "torch 2.50"]


def test_a_kind_that_is_not_always_shown_gets_a_column():
    page = readme_table.details(report(("avx2",)), "")
    assert "| attention 1t | – | – | – | torch 2.50 |" in page
    assert "| benchmark | engine | AVX512-BF16 | AMX | AVX2 |" in page


def test_a_report_without_the_headline_is_refused():
    with pytest.raises(SystemExit, match="has no group 'linear_confidence D=768 C=1000"):
        readme_table.headline(report(head="linear_confidence D=512 C=10 N=4096 2t whole"))


def test_only_the_text_between_the_markers_changes(tmp_path):
    file = tmp_path / "page.md"
    file.write_text(f"above\n{readme_table.BEGIN}\nold\n{readme_table.END}\nbelow\n")
    readme_table.rewrite(file, lambda old: old.strip().replace("old", "new"))
    assert file.read_text() == f"above\n{readme_table.BEGIN}\nnew\n{readme_table.END}\nbelow\n"
    file.write_text("no markers")
    with pytest.raises(SystemExit, match="lacks the marker"):
        readme_table.rewrite(file, str)


def test_readme_and_benchmarks_page_show_the_same_run():
    row = next(
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and "| float32 / bfloat16 |" in line
    )
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    named, kind, day = re.fullmatch(
        r"(.+) \((.+)\), (\d{4}-\d\d-\d\d)", row.split("|")[1].strip()
    ).groups()
    assert f"- {kind}: {day}, {named} with" in page
    shown = [re.sub(r" \(.*\)", "", cell).strip().split(" / ") for cell in row.split("|")[3:6]]
    columns = re.search(
        r"^\| head \(D, C\) \| rows \| threads \| engine in \| (.+) \|$", page, re.M
    )
    at = columns[1].split(" | ").index(kind)
    for i, dtype in enumerate(("float32", "bfloat16")):
        pattern = rf"^\| \(768, 1000\) \| 4096 whole \| 2 \| {dtype} \| (.+) \|$"
        peers, costs = (cells.split(" | ")[at] for cells in re.findall(pattern, page, re.M))
        peers = dict(cell.rsplit(" ", 1) for cell in peers.split(";")[0].split(", "))
        assert shown[0][i] == peers.pop("naive-loop")
        assert shown[1][i] == min(peers.values(), key=float)
        assert shown[2][i] == costs.split(", ")[2]


def test_contenders_of_one_name_are_refused_not_mixed():
    given = report()
    given["benchmarks"] += entries("attention 1t", {"test_engine[random]": (None, None, 0.2)})
    with pytest.raises(SystemExit, match=r"test_engine\[random\].*another 'engine'"):
        readme_table.groups(given)


def test_forms_of_the_engine_have_a_row_each():
    given = report()
    given["benchmarks"] += entries("masks 1t", {"test_engine[random]": ("form", "random", 0.2)})
    given["benchmarks"] += entries("masks 1t", {"test_engine[given]": ("form", "given", 0.1)})
    given["benchmarks"] += entries("masks 1t", {"test_peer[copy]": ("peer", "copy", 0.4)})
    page = readme_table.details(given, "")
    assert "| masks 1t | random | copy 2.00 |" in page
    assert "| masks 1t | given | copy 4.00 |" in page
