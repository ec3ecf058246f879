"""`--config`: the options that a run wrote are those of another run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lc_engine._util import atomic_write
from lc_engine.cli import main as cli
from lc_engine.cli.config_file import write_config
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
    monkeypatch.setattr("lc_engine.scoring.estimate._BUDGET_SECONDS", 0.0)
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


def refused(folder, capsys, *arguments, command="score", **options):
    """Give a file with other options: what is said."""
    config = json.loads((folder / "first" / "_config.json").read_text())
    capsys.readouterr()
    config = change(folder, options=config["options"] | options)
    assert cli.run([command, config, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("command", ["score", "plan"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("head", "warp", "option head must be one of prototype, linear, knn, got 'warp'"),
        ("dtype", 32, "option dtype must be one of auto, "),
        ("temperature", "hot", "option temperature must be a number, got 'hot'"),
        ("temperature", None, "option temperature must be given, got None"),
        ("neighbours", 0, "option neighbours must be at least 1, got 0"),
        ("image_size", 2.5, "option image_size must be an integer, got 2.5"),
        ("mask_seed", True, "option mask_seed must be an integer, got True"),
        ("save_path", "maybe", "option save_path must be true or false, got 'maybe'"),
        ("labels", [1], "option labels must be a text, got [1]"),
        ("path", ["gauss:8"], "option path must be a text, got ['gauss:8']"),
        ("model", None, "option model must be given, got None"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_named_with_the_file(
    folder, capsys, command, option, value, message
):
    error = refused(folder, capsys, command=command, **{option: value})
    assert error.startswith(f"lc-engine: --config other.json: {message}")


@pytest.mark.parametrize("command", ["score", "plan"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("path", "spiral:8", "path 'spiral:8' is not known"),
        ("temperature", -1.0, "temperature must be positive"),
        ("data", "none.npy", "--data none.npy does not exist"),
        ("device", "abacus", "--device abacus: "),
    ],
)
def test_so_is_the_file_of_a_value_that_fails_later(
    folder, capsys, command, option, value, message
):
    error = refused(folder, capsys, command=command, **{option: value})
    assert message in error
    assert error.endswith("(with the options of --config other.json)\n")
    # Without a file there is none to name.
    assert cli.run(["score", "--model=head.safetensors", "--data=none.npy"]) == 2
    assert "--config" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "cuda"),
        ("num_workers", 99),
        ("path", {"name": "gauss"}),
        ("head", "knn"),
        ("source", None),
        ("versions", {}),
    ],
)
def test_what_was_edited_beside_the_options_is_refused_by_name(folder, capsys, name, value):
    capsys.readouterr()
    assert cli.run(["score", change(folder, **{name: value}), "--out=second"]) == 2
    error = capsys.readouterr().err
    assert f"--config other.json: {name} is not as lc-engine wrote it, and is not read: " in error
    assert not (folder / "second").exists()
    # A file of options alone says all that is read.
    config = json.loads((folder / "first" / "_config.json").read_text())
    kept = {key: config[key] for key in ("version", "options")}
    (folder / "other.json").write_text(json.dumps(kept))
    assert cli.run(["score", "--config=other.json", "--out=second"]) == 0
    (folder / "other.json").write_text(json.dumps(kept | {name: value}))
    assert cli.run(["score", "--config=other.json", "--out=second"]) == 2


@pytest.mark.parametrize("command", ["score", "plan"])
def test_what_the_file_may_give_is_not_called_required(folder, capsys, command):
    capsys.readouterr()
    assert cli.run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "required" not in text
    assert "--config; needed" in " ".join(text.split())
    assert cli.run([command, "--data=x.npy"]) == 2
    assert capsys.readouterr().err == (
        "lc-engine: --model is missing: give it, or --config with a file of it\n"
    )
    assert cli.run(["prune", "--help"]) == 0, "which has no --config"
    assert "required" in capsys.readouterr().out


def test_ids_of_a_npy_file(folder):
    np.save("ids.npy", np.arange(100, 100 + ROWS))
    assert cli.run(["score", "--config=first/_config.json", "--ids=ids.npy", "--out=second"]) == 0
    assert ScoreTable.read("second").column("id").tolist() == list(range(100, 100 + ROWS))


def test_a_process_that_ends_the_run_meanwhile_spoils_no_config(tmp_path, monkeypatch):
    fsync, spoilt = atomic_write._fsync, []

    def cleaned_up_twice(path):
        if path.suffix == ".tmp" and len(spoilt) < 2:
            spoilt.append(path)
            path.unlink()
        fsync(path)

    monkeypatch.setattr(atomic_write, "_fsync", cleaned_up_twice)
    write_config(tmp_path, {}, {"head": "linear"})
    assert len(spoilt) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["_config.json"]
    with pytest.raises(FileNotFoundError):
        write_config(tmp_path / "gone", {}, {"head": "linear"})
