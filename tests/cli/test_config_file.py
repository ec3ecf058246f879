"""`--config`: the options that a run wrote are those of another run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lc_engine.cli import main as cli
from lc_engine.data.table import ScoreTable

ROWS, WIDTH, CLASSES = 40, 6, 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Features, a head, and the scores of a run with names for the rows."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((ROWS, WIDTH)).astype(np.float32))
    np.save(tmp_path / "y.npy", rng.integers(0, CLASSES, ROWS))
    (tmp_path / "ids.txt").write_text("".join(f"row {i}\n" for i in range(ROWS)))
    weight = torch.from_numpy(rng.standard_normal((CLASSES, WIDTH)).astype(np.float32))
    save_file({"weight": weight, "bias": torch.zeros(CLASSES)}, tmp_path / "head.safetensors")
    monkeypatch.chdir(tmp_path)
    given = ("--model=head.safetensors", "--data=x.npy", "--labels=y.npy", "--ids=ids.txt")
    assert cli.run(["score", *given, "--path=linear:4:0.3:1.0", "--save-path", "--out=first"]) == 0
    return tmp_path


def change(folder, **changes):
    """Write another config file."""
    config = json.loads((folder / "first" / "_config.json").read_text()) | changes
    (folder / "other.json").write_text(json.dumps(config))
    return "--config=other.json"


def test_a_run_is_repeated_from_any_folder(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    config = folder / "first" / "_config.json"
    assert cli.run(["score", "--config", str(config), "--out", str(folder / "second")]) == 0
    first, second = (ScoreTable.read(folder / name) for name in ("first", "second"))
    assert first.column("id").tolist() == [f"row {i}" for i in range(ROWS)]
    assert second.column_names == first.column_names
    for name in first.column_names:
        np.testing.assert_array_equal(second.column(name), first.column(name))
    written = [
        json.loads((folder / name / "_config.json").read_text()) for name in ("first", "second")
    ]
    assert written[0].pop("options") | {"out": str(folder / "second")} == written[1].pop("options")
    assert written[0] == written[1]


def test_without_another_option_it_is_the_same_run(folder, capsys):
    before = {file.name: file.stat().st_mtime_ns for file in (folder / "first").glob("part-*")}
    capsys.readouterr()
    assert cli.run(["score", "--config=first/_config.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == str(folder / "first")
    assert before == {f.name: f.stat().st_mtime_ns for f in (folder / "first").glob("part-*")}


def test_options_of_the_command_line_win(folder):
    arguments = ("--config=first/_config.json", "--out=second", "--path=gauss:2", "--no-save-path")
    assert cli.run(["score", *arguments]) == 0
    table = ScoreTable.read("second")
    assert table.metadata["path"]["name"] == "gauss"
    assert "path_log_probs" not in table.column_names
    # The order does not matter.
    assert cli.run(["score", "--path=gauss:3", "--config=first/_config.json", "--out=third"]) == 0
    assert len(ScoreTable.read("third").metadata["path"]["capacities"]) == 3


def test_plan_takes_it_too(folder, capsys, monkeypatch):
    monkeypatch.setattr("lc_engine.scoring.estimate._PROBE_SECONDS", 0.0)
    capsys.readouterr()
    assert cli.run(["plan", "--config=first/_config.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == ROWS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "other.json has version 2; this lc-engine reads version 1"),
        ({"version": None}, "other.json has version None"),
        ({"options": {"model": "m", "colour": 1, "speed": 2}}, "unknown options: colour, speed"),
        ({"options": ["model"]}, "other.json has no options"),
        ({"batch_size": 5}, "unknown keys: batch_size; options stand under"),
    ],
)
def test_another_file_is_refused_by_name(folder, capsys, changes, message):
    assert cli.run(["score", change(folder, **changes)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lc-engine: --config other.json")
    assert message in error
    assert error.count("\n") == 1


def test_what_is_no_config_at_all(folder, capsys):
    (folder / "text.json").write_text("model = 1")
    (folder / "list.json").write_text("[1]")
    (folder / "empty.json").write_text("")
    (folder / "digits.json").write_text(f'{{"version": {"1" * 401}}}')
    (folder / "deep.json").write_text('{"a":' * 100_000)
    for name, message in (
        ("text.json", "is damaged"),
        ("list.json", "must hold a JSON object, got list"),
        ("empty.json", "is empty: give one that `lc-engine score` wrote"),
        ("digits.json", "an integer has 401 digits"),
        ("deep.json", "is damaged"),
        ("none.json", "--config none.json does not exist"),
        ("first", "--config first is a folder: give the _config.json in it"),
    ):
        assert cli.run(["score", f"--config={name}"]) == 2
        assert message in capsys.readouterr().err


def test_a_value_of_another_kind_is_a_usage_error(folder, capsys):
    config = json.loads((folder / "first" / "_config.json").read_text())
    options = config["options"] | {"head": "warp"}
    assert cli.run(["score", change(folder, options=options)]) == 2
    assert "--head" in capsys.readouterr().err


def test_ids_of_a_npy_file(folder):
    np.save("ids.npy", np.arange(100, 100 + ROWS))
    assert cli.run(["score", "--config=first/_config.json", "--ids=ids.npy", "--out=second"]) == 0
    assert ScoreTable.read("second").column("id").tolist() == list(range(100, 100 + ROWS))
