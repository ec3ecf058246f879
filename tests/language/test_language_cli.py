from __future__ import annotations

import json

import numpy as np
import pytest

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine.cli import main as cli


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "instructions.jsonl"
    rows = tiny.random_rows(np.random.default_rng(4), 12)
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_score_and_select(folder, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["score", "--model", str(folder), "--data", str(data), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["status"] == {"ok": 12}
    table = lc.ScoreTable.read("scores")
    scorer = lc.Scorer.for_causal_lm(str(folder))
    np.testing.assert_array_equal(table.column("lc"), lc.score(scorer, data).column("lc"))
    assert cli.run(["select", "scores", "--keep", "0.25", "--out", "kept.txt"]) == 0
    assert len((tmp_path / "kept.txt").read_text().split()) == 3


def test_options_reach_the_scorer(folder, data, tmp_path):
    options = (
        *("--masking", "dropout", "--path", "explicit:0.9,0.5", "--mask-seed", "3", "--ifd"),
        *("--turns", "last", "--max-tokens", "90", "--dtype", "float32", "--form", "alpaca"),
    )
    out = tmp_path / "out"
    arguments = ["score", "--model", str(folder), "--data", str(data), "--out", str(out)]
    assert cli.run([*arguments, *options]) == 0
    table = lc.ScoreTable.read(out)
    assert table.metadata["masking"]["kind"] == "dropout"
    assert table.metadata["masking"]["seed"] == 3
    assert table.metadata["path"]["capacities"] == [0.9, 0.5]
    assert table.metadata["dtype"] == "float32"
    assert table.metadata["head"] | {"window": 90, "turns": "last"} == table.metadata["head"]
    assert np.isfinite(table.column("ifd")).all()
    source = json.loads((out / "config.json").read_text())["source"]
    assert (source["form"], source["form_is"]) == ("alpaca", "named")


def test_a_bad_row_is_named_and_ends_with_3(folder, data, tmp_path, capsys):
    data.write_text(data.read_text() + '\n{"instruction": \n')
    out = tmp_path / "out"
    assert cli.run(["score", "--model", str(folder), "--data", str(data), "--out", str(out)]) == 3
    assert "row 12: invalid_json: line 13: not JSON" in capsys.readouterr().out


def test_what_does_not_fit_ends_with_2(folder, data, tmp_path, capsys):
    out = ("--out", str(tmp_path / "out"))
    arguments = ["score", "--model", str(folder), "--data", str(data), *out]
    assert cli.run([*arguments, "--image-size", "32"]) == 2
    assert "--image-size is for models of images" in capsys.readouterr().err
    assert cli.run([*arguments, "--form", "parrot"]) == 2
    assert "form must be one of alpaca" in capsys.readouterr().err
    missing = str(tmp_path / "none")
    assert cli.run(["score", "--model", missing, "--data", str(data), *out]) == 2
    assert f"model {missing} cannot be loaded as a causal language" in capsys.readouterr().err
