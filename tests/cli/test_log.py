"""`lc-engine --log json`: every line of stderr is an object, an error and a warning too."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import save_file

from lc_engine.cli import log
from lc_engine.cli.main import run
from lc_engine.masking import MaskingWarning


@pytest.fixture
def job(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((40, 6), dtype=np.float32))
    np.save(tmp_path / "y.npy", np.arange(40) % 4)
    weight = rng.standard_normal((4, 6), dtype=np.float32)
    save_file({"weight": weight, "bias": np.zeros(4, np.float32)}, tmp_path / "head.safetensors")
    return [
        f"--model={tmp_path / 'head.safetensors'}",
        f"--data={tmp_path / 'x.npy'}",
        f"--labels={tmp_path / 'y.npy'}",
        f"--out={tmp_path / 'scores'}",
    ]


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def test_lines_are_objects_and_the_summary_stays_on_stdout(job, capsys):
    assert run(["--log", "json", "score", *job]) == 0
    shown = capsys.readouterr()
    lines = objects(shown.err)
    assert {"time", "level", "text"} <= set.intersection(*(set(line) for line in lines))
    assert any(line["text"].startswith("masks: 100.0%") for line in lines)
    assert shown.out.startswith("40 rows in")


def test_an_error_is_an_object_with_its_exit_code(job, capsys):
    assert run(["--log=json", "score", *job[:1], "--data=nowhere.npy", job[3]]) == 2
    (line,) = objects(capsys.readouterr().err)
    assert (line["level"], line["exit_code"]) == ("error", 2)
    assert "nowhere.npy" in line["text"]


def test_progress_has_its_numbers_and_warnings_are_lines(capsys):
    with warnings.catch_warnings(), log.to_stderr():
        warnings.simplefilter("default")
        log.use_json()
        with log.progress() as progress:
            progress._every = 0
            progress("scoring", 0, 80)
            progress("scoring", 40, 80)
            warnings.warn("odd", UserWarning, stacklevel=1)
    lines = objects(capsys.readouterr().err)
    (counted,) = [line for line in lines if line.get("done") == 40]
    assert (counted["phase"], counted["rows"], counted["level"]) == ("scoring", 80, "info")
    assert counted["rows_per_second"] > 0
    assert any("odd" in line["text"] and line["level"] == "warning" for line in lines)


@pytest.mark.parametrize("form", ["text", "json"])
def test_our_warnings_are_lines_without_a_source_file(capsys, form):
    shown = warnings.showwarning
    with warnings.catch_warnings(), log.to_stderr():
        warnings.simplefilter("always")
        if form == "json":
            log.use_json()
        warnings.warn("masks: 100% of them", MaskingWarning, stacklevel=1)
    (line,) = capsys.readouterr().err.splitlines()
    if form == "json":
        found = json.loads(line)
        assert found["level"] == "warning"
        line = found["text"]
    assert line == "masks: 100% of them"
    assert warnings.showwarning is shown


def test_the_next_command_speaks_text_again(job, capsys):
    assert run(["--log", "json", "score", *job]) == 0
    capsys.readouterr()
    assert run(["select", job[3][6:], "--keep=0.5", "--strategy=kcentre"]) == 2
    assert not capsys.readouterr().err.startswith("{")
