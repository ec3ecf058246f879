"""Sections of the page by columns of the data, by nearest class, and of several selections."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers.pages_of_scores import HOSTILE, blobs, payload, scored
from lc_engine.reporting.totals import length_group, length_name

SOURCES = ("web", HOSTILE, "book")


def read(path):
    return path.read_text(encoding="utf-8")


def line(html, name):
    """Return the cells of the row of a table that begins with a name, without markup."""
    found = re.search(rf'<th scope="row">{re.escape(name)}</th>.*?</tr>', html, re.S)[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", found, re.S)
    return [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in cells]


@pytest.fixture
def texts(tmp_path):
    """Scores of 90 rows of texts, and the file with their source and year."""
    rows = [
        {
            "instruction": f"Say {i}",
            "output": f"{i}",
            "source": SOURCES[i * i % 3],
            "year": 2000 + i % 7,
        }
        for i in range(90)
    ]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = scored(0, rows=90, classes=0, names=np.arange(90), head={"kind": "lm"})
    return table, file, rows


def test_rows_are_counted_by_source_before_and_after(texts, tmp_path):
    table, file, rows = texts
    ok = table.column("status") == "ok"
    kept = np.flatnonzero(ok)[::4]
    page = lc.report(table, file, kept, tmp_path / "report.html", carry=["source", "year"])
    html, found = read(page), payload(page)
    sources = np.array([row["source"] for row in rows])
    for source in ("web", HOSTILE):
        name = source.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
        count = int((ok & (sources == source)).sum())
        chosen = int(np.isin(np.flatnonzero(sources == source), kept).sum())
        cells = line(html, name)
        assert cells[0] == str(count)
        assert cells[-1] == f"{100 * chosen / count:.1f} % · {chosen}"
    column = found["texts"]["source"]
    assert [column["values"][i] for i in column["rows"]] == sources.tolist()
    assert found["extra"]["year"] == [float(row["year"]) for row in rows]
    assert "<img src=x" not in html


def test_a_column_that_the_data_lack_is_refused(texts, tmp_path):
    table, file, _ = texts
    with pytest.raises(ValueError, match="carry: the data have no column 'topic'"):
        lc.report(table, file, out=tmp_path / "report.html", carry=["topic"])
    with pytest.raises(ValueError, match="carry: name the data that have the column 'topic'"):
        lc.report(table, out=tmp_path / "report.html", carry=["topic"])


def test_lengths_are_grouped_by_powers_of_two():
    counts = np.array([0, 1, 2, 3, 4, 7, 8, 1023, 1024])
    groups = length_group(counts)
    assert groups.tolist() == [-1, 0, 1, 1, 2, 2, 3, 9, 10]
    names = ["none", "1 token", "2 to 3 tokens", "2 to 3 tokens", "4 to 7 tokens"]
    assert [length_name(group) for group in groups[:5].tolist()] == names
    assert length_name(10) == "1,024 to 2,047 tokens"


def test_what_each_selection_alone_keeps_is_shown(tmp_path):
    table = scored(2, rows=400)
    ids = table.column("id")[table.column("status") == "ok"]
    one, two = set(ids[:150].tolist()), set(ids[100:300].tolist())
    chosen = {"one": sorted(one), "two": sorted(two)}
    page = lc.report(table, None, chosen, tmp_path / "report.html")
    shown = payload(page)["id"]
    for name, alone in (("one", one - two), ("two", two - one)):
        part = re.search(rf"Kept by {name} alone.*?</ul>", read(page), re.S)[0]
        listed = {shown[int(point)] for point in re.findall(r'data-pin="(\d+)"', part)}
        assert len(listed) == 24
        assert listed <= alone
    again = lc.report(table, None, chosen, tmp_path / "again.html")
    assert payload(again) == payload(page)


def test_the_trial_is_a_table_with_its_errors(tmp_path):
    trial = [
        {"candidate": "random", "gain": 0.0, "error": 0.0},
        {"candidate": "herding", "gain": 3.456, "error": 0.789},
    ]
    table = scored(2, rows=40)
    page = lc.report(table, None, table.column("id")[:9], tmp_path / "report.html", trial=trial)
    part = read(page)
    assert part.index("herding") < part.index('<th scope="row">random')
    assert "+3.46" in part
    assert "± 0.79" in part


def test_the_class_that_a_row_looks_like_is_that_of_the_nearest_mean(tmp_path):
    scores, truth, labels = blobs(tmp_path)
    page = lc.report(scores, out=tmp_path / "report.html")
    html, found = read(page), payload(page)
    assert found["nearest"] == truth.tolist()
    assert html.count("looks like") >= 6
    assert f"{100 * (truth == labels).mean():.1f} % of them lie nearest" in html
    for label in range(3):
        of_label = truth[labels == label]
        cells = line(html.split('class="matrix"')[1], str(label))
        want = [f"{100 * (of_label == other).mean():.0f}" for other in range(3)]
        assert cells == ["" if share == "0" else share for share in want]


def test_a_run_says_what_its_masks_reach_and_what_it_warned_of(tmp_path):
    scores = tmp_path / "scores"
    half = torch.nn.Linear(4, 3)
    with torch.no_grad():
        half.weight[:, :3] = 0  # zeros cannot be masked, so capacities are missed
    scorer = lc.Scorer(
        half,
        head="linear",
        path=lc.LearningPath.explicit([1.0, 0.5]),
        masking=lc.Masking(weights="head"),
    )
    data = (np.ones((4, 4), np.float32), np.arange(4) % 3)
    with pytest.warns(UserWarning, match="zero"):
        lc.score(scorer, data, scores)
    html = read(lc.report(scores, out=tmp_path / "report.html"))
    assert "Capacities asked, %</dt><dd>100, 50</dd>" in html
    assert "Capacities reached, %</dt><dd>25, " in html
    assert re.search(r'<p class="warning">Masks: .*zero', html)
