"""The tables that `benchmarks.templates_table` writes into docs/templates.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import templates_table
from benchmarks.templates.judge import Verdict

PAGE = Path(__file__).parents[1] / "docs" / "templates.md"
FOUND = {
    ("bpe", "trl/a", "plain"): Verdict("right", "offsets", ""),
    ("bpe", "trl/b", "plain"): Verdict("unscored", "marks", "unreadable: row 0: it is | odd"),
    ("bpe", "trl/a", "flags"): Verdict("wrong", "offsets", "1 tokens counted: 'x'"),
    ("bpe", "trl/b", "flags"): Verdict("rejected", "", "unreadable: row 0: no"),
}


def test_only_what_is_between_the_lines_of_a_table_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    begin, end = templates_table.BEGIN.format("kinds"), templates_table.END.format("kinds")
    page.write_text(f"# A page\n{begin}\n| old |\n{end}\nMore.\n", "utf-8")
    templates_table.write(page, {"kinds": "| new |"})
    assert page.read_text("utf-8") == f"# A page\n{begin}\n| new |\n{end}\nMore.\n"
    with pytest.raises(ValueError, match=r"page.md lacks the lines <!-- sets"):
        templates_table.write(page, {"sets": ""})


def test_the_page_has_a_place_for_every_table_and_no_row_that_is_scored_otherwise():
    text = PAGE.read_text("utf-8")
    for name in ("kinds", "reasons", "sets"):
        assert templates_table.BEGIN.format(name) in text
        assert templates_table.END.format(name) in text
    (together,) = re.findall(r"^\| together \| (\d+) \| (\d+) \| (\d+) \|", text, re.M)
    right, wrong, unscored = map(int, together)
    assert wrong == 0
    assert unscored <= 0.01 * (right + unscored)


def test_rows_are_counted_by_kind_and_by_what_became_of_them():
    lines = templates_table.table_of_kinds(FOUND, 2).splitlines()
    assert "Of 3 rows that a template takes" in lines[0]
    assert "1 are scored on other tokens" in lines[0]
    assert "1 (33.33%) get no score" in lines[0]
    assert lines[-3:] == [
        "| plain | 1 | 0 | 1 | 0 | 0 |",
        "| flags | 0 | 1 | 0 | 0 | 1 |",
        "| together | 1 | 1 | 1 | 0 | 1 |",
    ]


def test_a_reason_is_told_with_its_templates():
    lines = templates_table.table_of_reasons(FOUND).splitlines()
    assert "| no score | `unreadable`: it is \\| odd | trl/b |" in lines
    assert len(lines) == 2 + 3
