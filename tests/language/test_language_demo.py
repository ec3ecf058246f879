from __future__ import annotations

import json

import pytest

import lc_engine as lc
from lc_engine.demo.language import LanguageSettings, run_language
from lc_engine.demo.language_summary import language_text

TINY = LanguageSettings(
    rows=10,
    path=lc.LearningPath.explicit([0.8]),
    compared=5,
    families=(
        ("magnitude", lc.LearningPath.explicit([0.8])),
        ("dropout", lc.LearningPath.explicit([0.9, 0.5])),
    ),
    rounds=1,
    keep=0.3,
    shown=2,
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    return run_language(out, seed=1, settings=TINY, say=lambda _: None)


def test_engine_and_loop_agree(outcome):
    assert [one.family for one in outcome.compared] == ["magnitude", "dropout"]
    for one, sub_models in zip(outcome.compared, (1, 2), strict=True):
        assert (one.rows, one.sub_models) == (5, sub_models)
        assert one.nll_difference < 1e-4
        assert one.lc_difference < 1e-4
        assert set(one.seconds) == {"loop", "float32", "auto"}
        assert 0 <= one.padding < one.computed


def test_what_is_written(outcome):
    names = {"instructions.jsonl", "scores", "subset.txt", "language.json"}
    assert {path.name for path in outcome.out.iterdir()} == names
    data = (outcome.out / "instructions.jsonl").read_text()
    rows = [json.loads(line) for line in data.splitlines()]
    table = lc.ScoreTable.read(outcome.out / "scores")
    assert table.status_counts() == {"ok": len(rows)} == {"ok": 10}
    kept = [int(line) for line in (outcome.out / "subset.txt").read_text().split()]
    assert kept == lc.select(table, 0.3, seed=1).tolist()
    column = table.column("lc").tolist()
    assert [lc for lc, _ in outcome.easiest] == sorted(column, reverse=True)[:2]
    assert [lc for lc, _ in outcome.hardest] == sorted(column)[:2]
    for lc_value, row in [*outcome.easiest, *outcome.hardest]:
        assert rows[column.index(lc_value)] == row


def test_the_text(outcome):
    text = language_text(outcome)
    assert "parity with the plain loop, float32" in text
    assert "dropout, plain loop" in text
    assert f"kept     3 of 10\nwritten  {outcome.out}" in text
    for _, row in outcome.easiest:
        assert " ".join(row["prompt"].split())[:40] in text


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else than an earlier demo"):
        run_language(tmp_path, settings=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
