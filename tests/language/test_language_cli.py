from __future__ import annotations

import json

import datasets
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


@pytest.mark.slow
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
    source = json.loads((out / "_config.json").read_text())["source"]
    assert (source["form"], source["form_is"]) == ("alpaca", "named")


def test_a_template_and_its_variables_reach_the_scorer(folder, tmp_path):
    data, template = tmp_path / "talk.jsonl", tmp_path / "template.jinja"
    said = {"role": "assistant", "content": "<think>\nhe\n</think>\n\nhello"}
    rows = [{"messages": [{"role": "user", "content": "hi"}, said]}] * 3
    data.write_text("\n".join(map(json.dumps, rows)))
    template.write_text("{{ tone }}" + tiny.TEMPLATE)
    arguments = ["score", "--model", str(folder), "--data", str(data), "--path", "explicit:1.0"]
    given = ["--chat-template", str(template), "--template-kwargs", '{"tone": "dry"}']
    counts = {}
    for reasoning in ("score", "context", "drop"):
        out = tmp_path / reasoning
        assert cli.run([*arguments, *given, "--reasoning", reasoning, "--out", str(out)]) == 0
        table = lc.ScoreTable.read(out)
        counts[reasoning] = int(table.column("token_count")[0])
        head = table.metadata["head"]
        assert (head["template_kwargs"], head["reasoning"]) == ({"tone": "dry"}, reasoning)
    assert counts["score"] > counts["context"] == counts["drop"]
    config = json.loads((tmp_path / "score" / "_config.json").read_text())
    assert config["options"]["chat_template"] == str(template)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--template-kwargs", "{tone}"), "--template-kwargs is not JSON"),
        (("--template-kwargs", "[1]"), "--template-kwargs must be a JSON object, got [1]"),
        (("--template-kwargs", '{"tokenize": 1}'), "tokenize cannot be given"),
        (("--chat-template", "nowhere.jinja"), "--chat-template nowhere.jinja: "),
    ],
)
def test_a_template_that_cannot_be_taken_ends_with_2(folder, data, tmp_path, capsys, options, says):
    arguments = ["score", "--model", str(folder), "--data", str(data), "--out", str(tmp_path / "o")]
    assert cli.run([*arguments, *options]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_bad_row_is_named_and_ends_with_3(folder, data, tmp_path, capsys):
    data.write_text(data.read_text() + '\n{"instruction": \n')
    out = tmp_path / "out"
    assert cli.run(["score", "--model", str(folder), "--data", str(data), "--out", str(out)]) == 3
    assert "1 invalid_json, first in row 12: line 13: not JSON" in capsys.readouterr().out


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


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "saved"])
def test_a_plan_of_instruction_data(folder, tmp_path, capsys, kind):
    rows = tiny.random_rows(np.random.default_rng(4), 12)
    data = datasets.Dataset.from_list(rows)
    path = tmp_path / f"rows.{kind}"
    write = {"jsonl": data.to_json, "parquet": data.to_parquet, "saved": data.save_to_disk}[kind]
    write(str(path))
    capsys.readouterr()
    arguments = ["plan", "--model", str(folder), "--data", str(path), "--path", "explicit:0.9"]
    assert cli.run([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["rows"] == 12
    assert plan["seconds"] > 0


@pytest.mark.parametrize("kind", ["csv", "parquet", "saved"])
def test_data_of_texts_say_that_a_name_is_a_language_model(tmp_path, capsys, kind):
    data = datasets.Dataset.from_dict({"instruction": ["?"], "output": ["!"]})
    path = tmp_path / f"rows.{kind}"
    write = {"csv": data.to_csv, "parquet": data.to_parquet, "saved": data.save_to_disk}[kind]
    write(str(path))
    arguments = ["score", "--data", str(path), "--out", str(tmp_path / "out"), "--model"]
    assert cli.run([*arguments, str(tmp_path / "gone")]) == 2
    assert "cannot be loaded as a causal language model" in capsys.readouterr().err


def test_names_of_the_hub_go_to_datasets(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = tiny.random_rows(np.random.default_rng(4), 3)
    train = datasets.Dataset.from_list(rows)
    asked = []

    def load_dataset(name, *, split, trust_remote_code):
        asked.append((name, split, trust_remote_code))
        if name == "owner/none":
            raise ConnectionError("Couldn't reach 'owner/none' on the Hub")
        if split is not None:
            return train
        return datasets.DatasetDict({"train": train, "test": train})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    arguments = ["score", "--model", str(folder), "--path", "explicit:0.9", "--data"]
    assert cli.run([*arguments, "owner/talk:train"]) == 0
    assert lc.ScoreTable.read("scores").status_counts() == {"ok": 3}
    capsys.readouterr()
    assert cli.run([*arguments, "owner/talk"]) == 2
    assert "owner/talk has the splits train, test; name one" in capsys.readouterr().err
    assert cli.run([*arguments, "owner/none"]) == 2
    assert "owner/none is neither here nor could it be loaded" in capsys.readouterr().err
    assert asked == [
        ("owner/talk", "train", False),
        ("owner/talk", None, False),
        ("owner/none", None, False),
    ]
    (tmp_path / "owner").mkdir()
    assert cli.run([*arguments, "owner/none"]) == 2
    assert "--data owner/none does not exist" in capsys.readouterr().err
